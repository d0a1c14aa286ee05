# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-setup)=
# # Load data and judge a set
#
# When is one set of images better than another, and not just luckier?
#
# **You will** load the digits, an image folder of your own and the paper's subsets; build the five
# networks; plot what happens during a training; and evaluate a set with repeats and an interval.
#
# **You will learn** what section 4.1 of the paper fixes, what the public code adds to it, and how
# far a number can be trusted.
#
# **You need** one CPU core, 1 GB of memory and half a minute (preset `smoke`; with `cpu` a few
# minutes). No GPU, no Internet. The page to it is {doc}`../book/experiments/41_setup`. What is
# claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# of the evaluation at the end: smoke, cpu, gpu, paper
preset = os.environ.get("LD3M_PRESET", "smoke")
subset = "imagenette"  # shown if LD3M_DATA says where its images are
seed = 0  # of every random draw
# where the small image folder goes
out = os.environ.get("LD3M_OUT", "../runs/load_data_and_judge")
sliders = False  # True, with a live kernel: a section has sliders

# %% tags=["hide-cell"]
import importlib.util
import subprocess
import sys

# without the package: install it, once, from the clone that this notebook
# is in, or from an address, where a notebook is opened alone (Colab)
if importlib.util.find_spec("ld3m_min") is None:
    address = os.environ.get("LD3M_REPOSITORY", "")  # of the repository
    clone = os.path.exists("../pyproject.toml")
    if not clone and not address:
        raise SystemExit('set address = "https://..." above: the repository')
    what = ["-e", "..[notebooks]"]
    if not clone:
        what = [f"ld3m-min[notebooks] @ git+{address}"]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *what], check=True)
    sys.path.insert(0, "..")

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image
from scipy import stats

from ld3m_min import presets
from ld3m_min.config import ARCHITECTURES
from ld3m_min.data import load_data
from ld3m_min.data.subsets import PRINTED, SUBSETS
from ld3m_min.evaluate import evaluate
from ld3m_min.evaluate.protocol import ema_decay, lr_factor
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.results import Results
from ld3m_min.experiments.statistics import paired
from ld3m_min.experiments.style import BLUE, GREY, ORANGE, PURPLE
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network
from ld3m_min.run import random_real

viz.use_style()


def show(images, columns, titles=None, row_labels=None, scale=0.42):
    """A grid of images, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 50})
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


def plot(rows=1, columns=1, **kwargs):
    """Empty plots, as PNG."""
    set_matplotlib_formats("png")
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


def contact_sheet(split, classes, each=9, **kwargs):
    """The first images of each class, a row for each."""
    rows = []
    for k in range(len(classes)):
        positions = split.class_positions(k)[:each]
        rows.append(split.images[positions].float() / 255)
    return show(torch.cat(rows), each, row_labels=classes, **kwargs)


# %% [markdown]
# ## Three splits
#
# Everything learns from the training images. Every choice (a learning rate, a moment to stop) is
# made on the validation images, which are cut from the training images. The test images decide
# nothing and give the one number at the end.

# %% mystnb={"image": {"alt": "A contact sheet: ten rows of nine small digits, one row for each class from 0 to 9. The digits of a row are written in different hands."}}
data = load_data("digits")
splits = {s: data.split(s) for s in ("train", "validation", "test")}
fig = contact_sheet(data.train, data.classes)
# %% [markdown]
# *The first nine training images of each class.*

# %% mystnb={"image": {"alt": "Stacked bars for the ten classes: about a hundred training images each, about thirty validation images, about fifty test images. All classes are nearly equally large."}}
fig, axis = plot(figsize=(4.6, 2.6))
bottom, colours = np.zeros(10), (BLUE, ORANGE, PURPLE)
sizes = {
    name: [len(split.class_positions(k)) for k in range(10)]
    for name, split in splits.items()
}
hatches = ("", "//", "..")
for (name, n), colour, hatch in zip(
    sizes.items(), colours, hatches, strict=True
):
    style = {"color": colour, "hatch": hatch, "ec": "white"}
    axis.bar(data.classes, n, bottom=bottom, label=f"{name}: {sum(n)}", **style)
    bottom += n
axis.set(xlabel="class", ylabel="images", ylim=(0, 260))
axis.legend(ncols=3, loc="upper center", fontsize=8, handlelength=1)
_ = axis.set_title("What each split is made of")
# %% [markdown]
# *Images of each class in the three splits. No image is in two of them. (A few of the 1,797 digits
# could be equal by chance, since they have only 64 pixels of 17 grey values; none are.)*

# %% tags=["hide-cell"]
keys = {n: {x.numpy().tobytes() for x in s.images} for n, s in splits.items()}
assert all(not keys[a] & keys[b] for a, b in itertools.combinations(keys, 2))

# %% [markdown]
# ## An image folder of your own
#
# One subfolder a class is a data set. Here is one, of thirty digits as PNG files. What is held out
# depends on the files' names alone, so it is the same on every machine.

# %%
folder = Path(out) / "mine"
for label, name in enumerate(("zero", "one", "two")):
    (folder / name).mkdir(parents=True, exist_ok=True)
    some = data.train.class_positions(label)[:10].tolist()
    for i, position in enumerate(some):
        array = data.train.images[position].permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / name / f"{i:02d}.png")
mine = load_data(folder, size=64, cache=False, progress=False)
for name in splits:
    part = mine.split(name)
    print(name, len(part), "of", tuple(part.images.shape[1:]))

# %% mystnb={"image": {"alt": "Three rows of five digits at 64 px, labelled zero, one and two: the first training images of the folder."}}
fig = contact_sheet(mine.train, mine.classes, each=5)
# %% [markdown]
# *Training images of the folder; the names of its subfolders are the classes.*
#
# ## The ten subsets
#
# The paper distils ten classes of ImageNet at a time, in ten choices.
# {doc}`../book/reference/class_tables` lists them.
#
# ```{admonition} Make a prediction
# Ten subsets of ten classes: how many different classes? Are the five subsets "A" to "E" disjoint
# from the others?
# ```

# %% mystnb={"image": {"alt": "A matrix of the ten subsets against each other; each cell has the number of shared classes. The diagonal is ten. ImageNet-A to E share none with one another; some pairs of the others share a few."}}
ids = {s.name: set(s.ids) for s in SUBSETS.values()}
shared = np.array([[len(a & b) for b in ids.values()] for a in ids.values()])
fig, axis = plot(figsize=(4.6, 4.3))
axis.imshow(np.minimum(shared, 4), cmap="Purples", vmax=6)
for i, j in itertools.product(range(10), repeat=2):
    if shared[i, j]:
        axis.text(j, i, shared[i, j], ha="center", va="center", fontsize=9)
names = [n.replace("imagenet-", "") for n in ids]
axis.set_xticks(range(10), names, rotation=60, ha="right")
axis.set_yticks(range(10), names)
axis.grid(False)
_ = axis.set_title("Classes that two subsets share")
# %% tags=["hide-cell"]
known = set.union(*ids.values())
assert all(len(set(s.ids)) == 10 for s in SUBSETS.values())
assert all(shared.diagonal() == 10)
assert (shared[:5, :5] == 10 * np.eye(5)).all()
print(len(known), "different classes;", end=" ")
print(len(PRINTED), "printed under another name than ImageNet's")
pd.DataFrame(
    [
        {
            "name": s.name,
            "first id": s.ids[0],
            "wnid": s.wnids[0],
            "first class": s.classes[0],
        }
        for s in SUBSETS.values()
    ]
)

# %% [markdown]
# *Empty cells: no class in common.*
#
# ```{admonition} Answer
# :class: dropdown
# The folded cell counts them. "A" to "E" share none with one another, but "C", "D" and "E" share
# some with cats, birds and dogs.
# ```
#
# With `LD3M_DATA=/path/to/imagenet` in the environment (a tree with `train/` and `val/`, or what
# fastai publishes), `load_data("imagenette")` is a data set like the others, and so are the nine
# others. The cell below shows its contact sheet then.

# %% tags=["nbval-ignore-output", "hide-input"]
if os.environ.get("LD3M_DATA"):
    split = "fastai" if subset in ("imagenette", "imagewoof") else None
    photographs = load_data(subset, split=split, progress=False)
    contact_sheet(photographs.train, photographs.classes)
else:
    print("LD3M_DATA is not set, so there is nothing to show here")

# %% [markdown]
# ## The five networks
#
# A ConvNet distils; the four others are unseen.
#
# ```{admonition} Make a prediction
# Which of the five is the largest at 128 px, and which of them grow with the image?
# ```

# %%
small = presets.eval_preset("cpu").width
kinds = {
    "digits, 32 px": {"size": 32, "width": small},
    "128 px": {"size": 128},
    "256 px": {"size": 256},
}
counts = {}
for kind, settings in kinds.items():
    networks = {n: build_network(n, **settings) for n in ARCHITECTURES}
    counts[kind] = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in networks.items()
    }

# %% mystnb={"image": {"alt": "Parameters of five networks on a logarithmic axis, at three sizes. At 128 px ConvNet has 0.6 million, AlexNet 2.3, VGG11 9.5, ResNet18 11.2, ViT 16.2. At 256 px ConvNet, AlexNet and ViT are larger, VGG11 and ResNet18 the same. On digits all are a tenth of that or less."}}
fig, axis = plot(figsize=(4.6, 2.9))
marks = zip(counts.items(), "o^D", (BLUE, ORANGE, PURPLE), strict=True)
for (kind, numbers), mark, colour in marks:
    place = list(numbers)
    axis.plot(list(numbers.values()), place, mark, color=colour, label=kind)
axis.invert_yaxis()
axis.set(xscale="log", xlabel="parameters")
axis.set_title("Five networks")
_ = fig.legend(
    *axis.get_legend_handles_labels(), loc="outside lower center", ncols=3
)
# %% [markdown]
# *Parameters with ten classes. On digits, the preset `cpu` shrinks all of them.*
#
# ```{admonition} Answer
# :class: dropdown
# The ViT. The ConvNet has five blocks at 128 px and six at 256; AlexNet and ViT grow with the image
# too. VGG-11 and ResNet-18 pool it to a fixed size.
# ```

# %% tags=["hide-cell"]
sizes = [615690, 2333002, 9476874, 11173962, 16176650]
assert list(counts["128 px"].values()) == sizes
larger = counts["256 px"]
assert {n for n in larger if larger[n] == counts["128 px"][n]} == {
    "VGG11",
    "ResNet18",
}
pd.DataFrame(counts).map("{:,}".format)

# %% [markdown]
# ## A training
#
# "A constant initial learning rate" for each network is all the paper says. The public code raises
# it linearly for half of the epochs and lowers it by a cosine in the other half, and tests an
# average of the weights.
#
# ```{admonition} Make a prediction
# Of the weights that are tested after a thousand epochs: how much was learned in the last hundred,
# a tenth, a half, or nearly all?
# ```

# %%
epochs = range(1000)
rate = [lr_factor(e, 1000) for e in epochs]
decay = [ema_decay(e) for e in epochs]
share = [(1 - decay[e]) * np.prod(decay[e + 1 :]) for e in epochs]
recent, warm_up = sum(share[-100:]), sum(share[:500])
print("learning rate:", {e: round(rate[e], 2) for e in (0, 250, 500, 750)})

# %% mystnb={"image": {"alt": "Two plots over a thousand epochs. Above, the learning rate rises in a straight line to its peak at 500 and falls in a cosine to zero. Below, the share of each epoch in the tested weights: almost nothing before 300, rising to the end; the last hundred epochs are shaded."}}
fig, (axis, below) = plot(2, 1, figsize=(4.6, 3.6), sharex=True)
axis.plot(epochs, rate, color=BLUE)
axis.set(ylabel="rate / base", title="The learning rate")
below.plot(epochs, [100 * x for x in share], color=ORANGE)
below.fill_between(epochs[-100:], [100 * x for x in share[-100:]], alpha=0.3)
below.set(xlabel="epoch", ylabel="share, %", ylim=(0, None))
below.set_title("Each epoch's share in the tested weights")
_ = below.annotate(
    f"the last hundred:\n{100 * recent:.0f} %",
    (950, 0.25),
    (480, 0.33),
    arrowprops={"arrowstyle": "->", "color": GREY},
)
# %% tags=["hide-cell"]
np.testing.assert_allclose(sum(share), 1)
assert 0.3 < recent < 0.5 and warm_up < 0.2

# %% [markdown]
# *The public code's protocol, in closed form.*
#
# ```{admonition} Answer
# :class: dropdown
# Four tenths. At first the average is the plain mean of all epochs so far; from the 200th on its
# memory is 200 epochs long. What is tested is therefore not the network of the last epoch.
# ```
#
# ## One normalisation
#
# A network takes images minus a mean, divided by a standard deviation. One pair of numbers serves
# real and synthetic images alike. The public code takes another mean for the synthetic ones.
#
# ```{admonition} Make a prediction
# To the network, how would such images look: brighter, darker, or tinted?
# ```

# %% mystnb={"image": {"alt": "Two rows of eight threes. The upper ones are white on black. The lower ones, as the network would see them, are darker and a little yellow."}}
x = data.train.sample_class(3, 8, seeded(seed, "threes"))
odd = data.with_normalisation("reference-mismatch")
mean, std = (
    torch.tensor(v).view(1, 3, 1, 1).float() for v in (data.mean, data.std)
)
seen = odd.normalise(x, synthetic=True) * std + mean
fig = show(
    torch.cat([x, seen.clamp(0, 1)]).float(),
    8,
    row_labels=["image", "as seen"],
)
# %% tags=["hide-cell"]
assert torch.equal(data.normalise(x), data.normalise(x, synthetic=True))
shift = odd.normalise(x, synthetic=True) - odd.normalise(x)
offsets = shift.mean((0, 2, 3)).tolist()
print("offset, in standard deviations:", [round(v, 2) for v in offsets])

# %% [markdown]
# *Eight threes, and what the other mean makes of them. The offset of each colour is in the folded
# cell; with ImageNet's own mean it is +0.21, +0.05 and -0.30 standard deviations.*
#
# ```{admonition} Answer
# :class: dropdown
# On the digits, darker and a little yellow, since blue loses most.
# ```
#
# ## How far to trust a number
#
# Two trainings on one set differ: other initial weights, other augmentation. Below, a set of ten
# real digits trains three networks, several times each.
#
# ```{admonition} Make a prediction
# How far apart are the best and the worst repeat of one network, in points of accuracy: 1, 5 or 15?
# ```

# %%
ten = random_real(presets.preset("smoke", seed=seed), data=data)
changed = {}
if preset == "smoke":
    changed = {"repeats": 4, "epochs": 40, "ema": 0.9}
protocol = presets.eval_preset(preset, **changed)
names = ("ConvNet", "VGG11", "ResNet18")
result = evaluate(ten, data, names, config=protocol, seed=seed)
print("unseen:", *result.unseen, "| repeats:", len(result.values()))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "For each network and for the mean of the unseen ones, the accuracies of the repeats as dots, their mean as a short line, and a 95 per cent interval as a bar. The dots of one network lie some points apart; the intervals are several points wide."}}
fig, axis = plot(figsize=(4.6, 3))
entries = [*names, None]
for k, name in enumerate(entries):
    values = 100 * result.values(name) if name else 100 * result.values()
    interval = result.confidence_interval(name)
    low, high = (100 * v for v in interval)
    colour = ORANGE if name is None else BLUE
    axis.bar(k, high - low, 0.5, low, color=colour, alpha=0.25)
    axis.plot([k - 0.25, k + 0.25], [values.mean()] * 2, "-", color=colour)
    jitter = np.linspace(-0.12, 0.12, len(values))
    axis.plot(k + jitter, values, "o", color=colour, ms=5)
axis.set_xticks(range(4), [*names, "mean of\nthe unseen"])
axis.axhline(10, ls=":", color=GREY)
axis.set_ylabel("accuracy, %")
_ = axis.set_title("One set, several trainings")
# %% [markdown]
# *Dots: one training each. Bars: the 95 % interval of the mean, by Student's $t$. Dotted: chance.*
#
# ```{admonition} Answer
# :class: dropdown
# About ten points, and fifteen with ResNet18, under the short protocol of the preset `smoke`, in
# which VGG11 hardly begins to learn. A difference of five points between two sets, each trained
# once, would say nothing.
# ```
#
# The paper repeats five times and prints the mean and a standard deviation. What you want to know
# is how near the mean is to what infinitely many repeats would give. For few repeats that takes
# Student's $t$.

# %% tags=["hide-cell"]
v = result.values()  # per repeat, averaged over the unseen networks
half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5
np.testing.assert_allclose(
    result.confidence_interval(), (v.mean() - half, v.mean() + half)
)
apart = [100 * np.ptp(result.values(n)) for n in names]
assert max(apart) > 5

# %% [markdown]
# Why not $\pm$ one standard deviation, or 1.96 standard errors? Draw $n$ repeats from a known
# normal distribution, many times, and count how often an interval holds the true mean.
#
# ```{admonition} Make a prediction
# With five repeats, mean $\pm$ standard deviation: how often is the truth inside?
# ```

# %%
generator, covered = np.random.default_rng(seed), {}
for n in (2, 3, 4, 5, 7, 10):
    x = generator.normal(size=(100_000, n))
    error = x.std(1, ddof=1) / n**0.5
    widths = {
        "± standard deviation": x.std(1),
        "± 1.96 errors": 1.96 * error,
        "Student's t": stats.t.ppf(0.975, n - 1) * error,
    }
    for name, width in widths.items():
        inside = (abs(x.mean(1)) < width).mean()
        covered.setdefault(name, {})[n] = 100 * float(inside)

# %% mystnb={"image": {"alt": "How often three kinds of interval hold the true mean, over the number of repeats from 2 to 10. Student's t is level at 95 per cent. 1.96 standard errors rise from 70 to 92. Plus or minus one standard deviation starts at 50, is at 89 with five repeats and passes 95 before ten."}}
fig, axis = plot(figsize=(4.6, 2.9))
for (name, line), style in zip(
    covered.items(), ("o-", "s--", "^-."), strict=True
):
    axis.plot(list(line), list(line.values()), style, label=name)
axis.axhline(95, ls=":", color=GREY)
axis.set(xlabel="repeats", ylabel="the truth is inside, %", xticks=range(2, 11))
axis.set_title("Which interval keeps its promise?")
_ = axis.legend(loc="lower right")
# %% [markdown]
# *Of 100,000 draws for each number of repeats.*
#
# ```{admonition} Answer
# :class: dropdown
# Nearly nine times in ten, by accident: a standard deviation is not meant as an interval of the
# mean. It says how far single repeats lie apart. Only Student's $t$ is right for every number of
# repeats.
# ```
#
# ```{admonition} What the interval covers
# :class: ours
# Repeats here train networks anew on **one** set. How much another distillation, with another seed,
# would differ is not in the interval; for that, sets have to be distilled again.
# ```

# %% tags=["hide-cell"]
for x in covered["Student's t"].values():
    assert abs(x - 95) < 0.5
assert covered["± 1.96 errors"][2] < 75
assert 85 < covered["± standard deviation"][5] < 92

# %% [markdown]
# ## Move it yourself
#
# Set `sliders = True` in the parameters, and the next cell has a slider for the number of repeats.
# How wide are the intervals with two, and how many of forty miss the truth?


# %% mystnb={"image": {"alt": "Forty intervals of the mean of five repeats around a dotted line at 80 per cent. All but one or two cross the line; those that miss are orange."}}
def forty(repeats):
    """Forty times so many repeats, and Student's t of each."""
    x = np.random.default_rng(seed).normal(80, 2, (40, repeats))
    quantile = stats.t.ppf(0.975, repeats - 1)
    half, middle = quantile * x.std(1, ddof=1) / repeats**0.5, x.mean(1)
    _, axis = plot(figsize=(4.6, 2.6))
    for hit, colour in ((True, BLUE), (False, ORANGE)):
        at = np.flatnonzero((abs(middle - 80) < half) == hit)
        axis.errorbar(at, middle[at], half[at], fmt="o", ms=3, color=colour)
    axis.axhline(80, ls=":", color=GREY)
    axis.set(xlabel="experiments", ylabel="accuracy, %")
    axis.set_title(f"{repeats} repeats each")
    plt.show()


viz.with_sliders(forty, sliders, repeats=(5, 2, 3, 8, 10))
# %% [markdown]
# *Repeats are drawn from a normal distribution around 80 with a deviation of 2.*
#
# The second explorer takes two systems of the {doc}`claim on digits
# <../book/experiments/digits_claim>`, from the records of this clone, and compares them seed by
# seed. Leave out a network, then a seed: which of the two moves the difference more, and does its
# interval know?


# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Eight dots, one for each seed, and their mean with its interval: the public code minus the autoencoder alone. The interval reaches from below to above the dotted line at zero."}}
def versus(ours, theirs, without_network, without_seed):
    """One system minus another by seed, their mean and its interval."""
    both = []
    for runs in (measured[ours], measured[theirs]):
        kept = [n for n in runs.networks if n != without_network]
        seeds = tuple(s for s in runs.seeds if str(s) != without_seed)
        where = [runs.seeds.index(s) for s in seeds]
        accuracies = runs.only(kept).accuracies[where]
        both.append(
            replace(runs.only(kept), seeds=seeds, accuracies=accuracies)
        )
    found = paired(*both, np.random.default_rng(0))
    _, axis = plot(figsize=(4.6, 1.6))
    axis.plot(100 * np.array(found.differences), [0] * found.n, "o", color=GREY)
    low, high = 100 * found.interval.low, 100 * found.interval.high
    axis.plot([low, high], [1, 1], lw=3, color=BLUE)
    axis.plot(100 * found.mean, 1, "o", ms=8, color=BLUE)
    axis.axvline(0, ls=":", color=GREY)
    axis.set_yticks([0, 1], [f"{found.n} seeds", "mean"])
    axis.set(ylim=(-0.6, 1.6), xlabel="points")
    axis.set_title(f"{ours} minus {theirs}")
    plt.show()


measured = {
    cell.space: runs
    for cell, runs in Results("digits", "evidence").runs.items()
    if (cell.algorithm, cell.ipc, cell.variant) == ("DM", 1, "")
    if len(runs.seeds) > 5
}
names = sorted(measured)  # none in a notebook that is opened alone
moved = None
if names:
    moved = viz.with_sliders(
        versus,
        sliders,
        ours=("ld3m-code", *(n for n in names if n != "ld3m-code")),
        theirs=("autoencoder", *(n for n in names if n != "autoencoder")),
        without_network=("none", *measured["ld3m-code"].networks),
        without_seed=("none", *map(str, measured["ld3m-code"].seeds)),
    )
moved
# %% [markdown]
# *Each dot is a seed: the difference of the means over networks and trainings. The bar is the 95 %
# interval of their mean.*

# %% [markdown]
# ## Exercises
#
# 1. Give ten images of `mine` other names. Which splits change?
# 2. `presets.eval_preset("paper").lr`: which network has a learning rate of its own, and how large
#    is it?
# 3. How many repeats are needed for an interval half as wide as with five, at equal spread?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# Those that the renamed files enter or leave. No other file moves, since each one's place depends
# on its own name.
# ```

# %% tags=["hide-cell"]
renamed = Path(out) / "renamed"
for file in folder.rglob("*.png"):
    name = f"new-{file.name}" if file.parent.name == "zero" else file.name
    target = renamed / file.parent.name / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
other = load_data(renamed, size=64, cache=False, progress=False)
for name in splits:
    before, after = (d.split(name).labels.tolist() for d in (mine, other))
    print(f"{name}: zeros {before.count(0)} -> {after.count(0)}, ", end="")
    print(f"others {len(before) - before.count(0)} -> ", end="")
    print(len(after) - after.count(0))
    assert sorted(x for x in before if x) == sorted(x for x in after if x)

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# VGG-11, with a tenth of the others'.
# ```

# %% tags=["hide-cell"]
print(presets.eval_preset("paper").lr)

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The half width is $t_{n-1}\,s/\sqrt n$, so $t_{n-1}/\sqrt n$ has to fall from
# $2.78/\sqrt 5 = 1.24$ to 0.62. That takes thirteen.
# ```

# %% tags=["hide-cell"]
width = {n: stats.t.ppf(0.975, n - 1) / n**0.5 for n in range(5, 30)}
enough = next(n for n in width if width[n] <= width[5] / 2)
print("repeats:", enough)
assert enough == 13

# %% [markdown]
# **To take away.** Learn from the training images, choose on the validation images, and look at the
# test images once. One training on a set says little: repeat it, and give the interval of the mean
# by Student's $t$. That interval covers other trainings on this set, not other distillations.
#
# **Next:** {doc}`../book/experiments/question` says what would count as an answer, and
# {doc}`../book/experiments/digits_claim` gives it. {doc}`42_kill_and_resume` shows how runs survive
# the machine.

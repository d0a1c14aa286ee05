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
# **You will** load the digits, an image folder of your own and the paper's subsets; build the five
# networks; plot what happens during a training; and judge a set with repeats and an interval.
#
# **You will learn** what section 4.1 of the paper fixes, what the public code adds to it, and how
# far a number can be trusted.
#
# **You need** one CPU core and half a minute. The page to it is
# {doc}`../book/experiments/41_setup`.

# %% tags=["parameters"]
import os

# of the evaluation at the end: smoke, cpu, gpu, paper
preset = os.environ.get("LD3M_PRESET", "smoke")
subset = "imagenette"  # shown if LD3M_DATA says where its images are
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/load_data_and_judge")  # where the small image folder goes

# %%
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats

from ld3m_min import presets
from ld3m_min.config import ARCHITECTURES
from ld3m_min.data import load_data
from ld3m_min.data.subsets import PRINTED, SUBSETS
from ld3m_min.evaluate import evaluate
from ld3m_min.evaluate.protocol import ema_decay, lr_factor
from ld3m_min.experiments import figures as viz
from ld3m_min.networks import build_network
from ld3m_min.run import random_real

# %% [markdown]
# ## Three splits
#
# Everything learns from the training images. Every choice (a learning rate, a moment to stop) is
# made on the validation images, which are cut from the training images. The test images decide
# nothing and give the one number at the end.

# %%
data = load_data("digits")
splits = {s: data.split(s) for s in ("train", "validation", "test")}
pd.DataFrame(
    {
        name: {
            "images": len(s),
            **{k: len(s.class_positions(i)) for i, k in enumerate(data.classes)},
        }
        for name, s in splits.items()
    }
).T

# %% [markdown]
# No image is in two of them. (A few of the 1,797 digits could be equal by chance, since they have
# only 64 pixels of 17 grey values; none are.)

# %%
keys = {name: {x.numpy().tobytes() for x in s.images} for name, s in splits.items()}
print("disjoint:", all(not keys[a] & keys[b] for a, b in itertools.combinations(keys, 2)))
one_each = torch.cat(
    [data.train.sample_class(k, 1, torch.Generator().manual_seed(seed)) for k in range(10)]
)
_ = viz.image_grid(one_each, titles=list(data.classes), scale=0.7)

# %% [markdown]
# ## An image folder of your own
#
# One subfolder a class is a data set. Here is one, of thirty digits as PNG files; what is held out
# depends on the files' names alone, so it is the same on every machine.

# %%
from PIL import Image

folder = Path(out) / "mine"
for label, name in enumerate(("zero", "one", "two")):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i, position in enumerate(data.train.class_positions(label)[:10].tolist()):
        Image.fromarray(data.train.images[position].permute(1, 2, 0).numpy()).save(
            folder / name / f"{i:02d}.png"
        )
mine = load_data(folder, size=64, cache=False, progress=False)
print(
    mine.name,
    mine.classes,
    "train",
    len(mine.train),
    "validation",
    len(mine.validation),
    "test",
    len(mine.test),
    "images",
    tuple(mine.train.images.shape[1:]),
)

# %% [markdown]
# ## The ten subsets
#
# The paper distils ten classes of ImageNet at a time, in ten choices.
# {doc}`../book/reference/class_tables` lists them.

# %%
pd.DataFrame(
    [
        {
            "name": s.name,
            "first id": s.ids[0],
            "wnid": s.wnids[0],
            "first class": s.classes[0],
            "classes": len(set(s.ids)),
        }
        for s in SUBSETS.values()
    ]
)

# %%
known = {i for s in SUBSETS.values() for i in s.ids}
print(len(known), "different classes;", len(PRINTED), "printed under another name than ImageNet's")
assert all(len(set(s.ids)) == 10 for s in SUBSETS.values())

# %% [markdown]
# With `LD3M_DATA=/path/to/imagenet` in the environment (a tree with `train/` and `val/`, or what
# fastai publishes), `load_data("imagenette")` is a data set like the others, and so are the nine
# others.

# %% tags=["nbval-ignore-output"]
if os.environ.get("LD3M_DATA"):
    real = load_data(
        subset, split="fastai" if subset in ("imagenette", "imagewoof") else None, progress=False
    )
    print(real.name, len(real.train), len(real.validation), len(real.test))
    _ = viz.image_grid(
        torch.cat(
            [real.train.sample_class(k, 1, torch.Generator().manual_seed(seed)) for k in range(10)]
        )
    )
else:
    print("LD3M_DATA is not set, so there is nothing to show here")

# %% [markdown]
# ## The five networks
#
# A ConvNet distils; the four others are unseen. With 128 px and ten classes they have these numbers
# of parameters:

# %%
counts = {
    size: {
        name: sum(p.numel() for p in build_network(name, size=size).parameters())
        for name in ARCHITECTURES
    }
    for size in (128, 256)
}
assert list(counts[128].values()) == [615690, 2333002, 9476874, 11173962, 16176650]
pd.DataFrame(counts).map("{:,}".format)

# %% [markdown]
# The ConvNet has five blocks at 128 px and six at 256. AlexNet and ViT grow with the image; VGG-11
# and ResNet-18 pool it to a fixed size. On digits, the preset `cpu` shrinks all of them.

# %%
small = presets.eval_preset("cpu").width
{
    name: f"{sum(p.numel() for p in build_network(name, size=32, width=small).parameters()):,}"
    for name in ARCHITECTURES
}

# %% [markdown]
# ## A training
#
# "A constant initial learning rate" for each network is all the paper says. The public code raises
# it linearly for half of the epochs and lowers it by a cosine in the other half, and tests an
# average of the weights. In closed form:

# %%
epochs = range(1000)
rate, decay = [lr_factor(e, 1000) for e in epochs], [ema_decay(e) for e in epochs]
print({e: round(rate[e], 4) for e in (0, 250, 500, 501, 750, 999)})
fig, axes = plt.subplots(1, 2, figsize=(7, 2.3))
axes[0].plot(epochs, rate)
axes[0].set(xlabel="epoch", ylabel="learning rate / base")
axes[1].plot(epochs, [1 - d for d in decay])
axes[1].set(xlabel="epoch", ylabel="weight of the newest", yscale="log")
for axis in axes:
    axis.grid(alpha=0.3)
fig.tight_layout()
# %% [markdown]
# At first the average is the plain mean of all epochs so far; from the 200th on its memory is 200
# epochs long. What is tested is therefore not the network of the last epoch. How much of the tested
# weights is younger than a hundred epochs?

# %%
share = np.array([(1 - decay[e]) * np.prod(decay[e + 1 :]) for e in epochs])
print(
    f"sum of all shares {share.sum():.3f}, of the last hundred {share[-100:].sum():.3f}, "
    f"of the warm-up {share[:500].sum():.3f}"
)

# %% [markdown]
# ## One normalisation
#
# A network takes images minus a mean, divided by a standard deviation. One pair of numbers serves
# real and synthetic images alike. The public code takes another mean for the synthetic ones; the
# same picture then looks darker and tinted to it. (On the digits, that is; with ImageNet's own mean
# the offsets are +0.21, +0.05 and -0.30.)

# %%
x = data.train.sample_class(3, 8, torch.Generator().manual_seed(seed))
odd = data.with_normalisation("reference-mismatch")
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (data.mean, data.std))
print("one for both:", torch.equal(data.normalise(x), data.normalise(x, synthetic=True)))
print(
    "the mismatch, in standard deviations:",
    (odd.normalise(x, synthetic=True) - odd.normalise(x)).mean((0, 2, 3)).numpy().round(3),
)

# %%
seen = odd.normalise(x, synthetic=True) * std.float() + mean.float()
_ = viz.image_grid(
    torch.cat([x, seen.clamp(0, 1)]).float(),
    8,
    row_labels=["image", "as the network\nwould see it"],
    scale=0.75,
)

# %% [markdown]
# ## How far to trust a number
#
# Two trainings on one set differ: other initial weights, other augmentation. The paper repeats five
# times and prints the mean and a standard deviation. What a reader wants to know is how near the
# mean is to what infinitely many repeats would give. For few repeats that takes Student's $t$; by
# hand and by the package:

# %%
judged = random_real(presets.preset("smoke", seed=seed), data=data)
changed = {"repeats": 3, "epochs": 40, "ema": 0.9} if preset == "smoke" else {}
result = evaluate(
    judged,
    data,
    ("ConvNet", "VGG11", "ResNet18"),
    config=presets.eval_preset(preset, **changed),
    seed=seed,
)
v = result.values()  # per repeat, averaged over the unseen networks
half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5
print(
    "unseen:",
    result.unseen,
    "| repeats:",
    len(v),
    "| equal:",
    np.allclose(result.confidence_interval(), (v.mean() - half, v.mean() + half)),
)

# %% tags=["nbval-ignore-output"]
low, high = result.confidence_interval()
print(
    f"mean {100 * result.mean():.1f} %, 95 % interval {100 * low:.1f} to {100 * high:.1f}, "
    f"population deviation {100 * result.std():.1f}"
)

# %% [markdown]
# Why not $\pm$ one standard deviation, or 1.96 standard errors? Draw $n$ repeats from a known
# normal distribution, many times, and count how often an interval holds the true mean.

# %%
draws, rows = np.random.default_rng(seed), {}
for n in (2, 3, 5, 10):
    x = draws.normal(size=(200_000, n))
    error = x.std(1, ddof=1) / n**0.5
    rows[n] = {
        name: (abs(x.mean(1)) < width).mean()
        for name, width in (
            ("mean +- std of n", x.std(1)),
            ("+- 1.96 errors", 1.96 * error),
            ("Student's t", stats.t.ppf(0.975, n - 1) * error),
        )
    }
pd.DataFrame(rows).T.rename_axis("repeats").round(3)

# %% [markdown]
# Only the last column is right for every number of repeats. The first one is not even meant as an
# interval of the mean: it says how far single repeats lie apart, and it covers what it covers by
# accident.
#
# ```{admonition} What the interval covers
# :class: ours
# Repeats here train networks anew on **one** set. How much another distillation, with another seed,
# would differ is not in the interval; for that, sets have to be distilled again.
# ```
#
# ## Exercises
#
# 1. Move ten images of `mine` to other names. Which splits change?
# 2. `presets.eval_preset("paper").lr`: which network has a learning rate of its own, and how large
#    is it?
# 3. How many repeats are needed for an interval half as wide as with five, at equal spread?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. Those that the renamed files enter or leave; no other file moves, since each one's place
#    depends on its own name.
# 2. VGG-11, with 0.0001; the others have 0.001.
# 3. The half width is $t_{n-1}\,s/\sqrt n$, so $t_{n-1}/\sqrt n$ has to fall from
#    $2.78/\sqrt 5 = 1.24$ to 0.62: that takes $n = 13$ ($2.18/\sqrt{13} = 0.60$; with 12 it is
#    0.635).
# ```
#
# **Next**: {doc}`../book/experiments/digits_claim`.

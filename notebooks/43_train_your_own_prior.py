# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-own-prior)=
# # Train your own prior
#
# Your images are not ImageNet's. What does a prior of your own have to be good at?
#
# **You will** compute by hand the three terms that keep an autoencoder sharp and see what each of
# them sees, train both halves of a prior, stop in the middle and go on bit for bit, and look at
# what a latent space does to pictures.
#
# **You will learn** what makes a latent space good for distillation: reconstruction against
# smoothness, and compression.
#
# **You need** one CPU core, 1 GB of memory and half a minute (preset `smoke`; `cpu` trains the
# shipped prior of the digits, which takes hours, and `gpu` one of photographs). No Internet. The
# page to it is {doc}`../book/experiments/43_own_prior`. What is claimed is also asserted, in the
# folded cells.

# %% tags=["parameters"]
import os

# smoke: a few steps on digits; cpu: the shipped digits prior; gpu: ImageNette
preset = os.environ.get("LD3M_PRESET", "smoke")
# where checkpoints go
out = os.environ.get("LD3M_OUT", "../runs/train_your_own_prior")
seed = 0  # of every random draw

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

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE, PURPLE
from ld3m_min.io import stop as signals
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.losses import laplacian, sharp, ssim
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.train import train_prior

viz.use_style()
near = torch.testing.assert_close
names = {
    "smoke": "smoke",
    "cpu": "digits",
    "gpu": "imagenette-128",
    "paper": "imagenette-128",
}
config = prior_preset(names[preset], seed=seed)
digits = load_data("digits")
data = digits
if config.dataset != "digits" and "LD3M_DATA" in os.environ:
    data = load_data(config.dataset, size=config.size)
records = Path("../book/_data/records")


def show(images, columns, titles=None, row_labels=None, scale=0.5):
    """A grid of images, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 55})
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


def plot(rows=1, columns=1, **kwargs):
    """Empty plots, as PNG."""
    set_matplotlib_formats("png")
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


# %% [markdown]
# ## Two networks
#
# A prior is an autoencoder and a noise predictor on its latents. The autoencoder halves the sides
# at each level but the first. How many numbers stand for one picture of 128 px?

# %%
rows = []
for levels in (2, 3, 4):
    factor = 2 ** (levels - 1)
    side = 128 // factor
    rows.append(
        {
            "f": factor,
            "latent": f"3 x {side} x {side}",
            "numbers": 3 * side**2,
            "compression": factor**2,
        }
    )
pd.DataFrame(rows).set_index("f")

# %%
wanted = prior_preset("imagenette-128")
prior = build_prior(wanted, tuple("abcdefghij"))
sizes = [sum(p.numel() for p in m.parameters()) / 1e6 for m in prior.modules]
print(f"f = {prior.factor}, {prior.latent_channels} channels")
print(f"autoencoder     {sizes[0]:.2f} million parameters")
print(f"noise predictor {sizes[1]:.2f} million parameters")

# %% tags=["hide-cell"]
assert 2 * sum(sizes) < 24  # MB in bfloat16

# %% [markdown]
# ## Why not the squared error
#
# A decoder that can't know where an edge is has to bet. Let an edge stand at pixel 10 in two of
# three pictures and at 14 in the third.
#
# ```{admonition} Make a prediction
# Which single answer has the least squared error to the three, and which the least absolute error?
# ```

# %%
edges = [(torch.arange(24) >= k).float() for k in (10, 10, 14)]
edges = torch.stack(edges)
grid = torch.linspace(0, 1, 101)[:, None, None]
squared = (grid - edges).square().mean(1)
absolute = (grid - edges).abs().mean(1)
best = {
    "squared": grid[squared.argmin(0), 0, 0],
    "absolute": grid[absolute.argmin(0), 0, 0],
}

# %% mystnb={"image": {"alt": "Brightness over pixels. Two thick grey edges, at pixel 10 and at 14. The best answer to the squared error is a staircase with a grey step at two thirds between them; that to the absolute error is the edge at 10."}}
fig, axis = plot(figsize=(4.6, 2.5))
for k, edge in zip((10, 14), edges[1:], strict=True):
    axis.step(range(24), edge, "-", where="post", color=GREY, lw=7, alpha=0.3)
    axis.text(k - 0.3, 0.08, f"at {k}", ha="right", fontsize=9, color=GREY)
looks = (("-", BLUE), ("--", ORANGE))
for (name, answer), (line, colour) in zip(best.items(), looks, strict=True):
    style = {"where": "post", "color": colour, "lw": 2.5}
    axis.step(range(24), answer, line, label=f"least {name} error", **style)
axis.set(xlabel="pixel", ylabel="brightness", ylim=(-0.05, 1.4))
_ = axis.legend(loc="upper left", fontsize=8)
# %% tags=["hide-cell"]
near(best["squared"], edges.mean(0), atol=0.01, rtol=0)
near(best["absolute"], edges.median(0).values, atol=0.01, rtol=0)
assert torch.equal(best["absolute"], edges[0])

# %% [markdown]
# *Grey, the pictures. The lines are the best answer to each error.*
#
# ```{admonition} Answer
# :class: dropdown
# The mean, a grey step that is in none of the three: blur. The absolute error is least at the
# median, which is one of them.
# ```
#
# ## Edges at every scale, and contrast
#
# A **Laplacian pyramid** splits a picture into what each coarser copy lacks. An error of one
# pixel's size is all in the finest level; a wrong brightness is in none. **SSIM** compares mean,
# variance and covariance in small windows. Take a digit, and spoil it in four ways that have the
# *same* squared error.
#
# ```{admonition} Make a prediction
# Blurred, speckled, brighter, shifted: which one does the pyramid mind least, and which does SSIM
# mind most?
# ```


# %%
def laplacian_by_hand(x, y, levels=3):
    rest, total = x - y, 0
    for _ in range(levels):
        coarse = F.avg_pool2d(rest, 2)
        back = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        total = total + (rest - back).abs().mean()
        rest = coarse
    return total


digit = digits.test.float()[2:3]
directions = {
    "blurred": F.avg_pool2d(digit, 5, 1, 2) - digit,
    "speckled": torch.randn(digit.shape, generator=seeded(seed, "speckles")),
    "brighter": torch.ones_like(digit),
    "shifted": digit.roll(1, 3) - digit,
}
error, spoilt = 0.004, {}
for name, d in directions.items():
    d = d * (error / d.square().mean()).sqrt()
    spoilt[name] = digit + d
terms = {
    name: {
        "absolute": (x - digit).abs().mean().item(),
        "pyramid": laplacian(x, digit).item(),
        "1 - SSIM": 1 - ssim(x, digit).mean().item(),
    }
    for name, x in spoilt.items()
}

# %% mystnb={"image": {"alt": "Five pictures of one digit: as it is, blurred, speckled, brighter, shifted."}}
fig = show(
    torch.cat([digit, *spoilt.values()]).clamp(0, 1),
    5,
    ["digit", *spoilt],
    scale=0.85,
)
# %% mystnb={"image": {"alt": "Three bar charts, absolute error, pyramid and one minus SSIM, for the four spoilt digits, relative to the largest. The pyramid is zero for the brighter digit and largest for the speckled one. One minus SSIM differs between the four as well."}}
fig, axes = plot(1, 3, figsize=(4.6, 2.3), sharey=True)
frame = pd.DataFrame(terms).T
colours = (BLUE, ORANGE, PURPLE)
for axis, term, colour in zip(axes, frame, colours, strict=True):
    axis.barh(
        list(frame.index), frame[term] / frame[term].max(), 0.6, color=colour
    )
    axis.set(title=term, xticks=[0, 1], xlim=(0, 1.05))
axes[0].invert_yaxis()
_ = fig.supxlabel("relative to the largest", fontsize=10)
# %% [markdown]
# *Four errors of equal squared size, as the three terms of the loss see them.*
#
# ```{admonition} Answer
# :class: dropdown
# The pyramid doesn't see the brightness at all and minds speckles most. SSIM minds a change of the
# flat ground, where the variance is zero, more than one at the strokes. The three together leave no
# kind of error out. The package's `sharp` adds them up: absolute error, pyramid, and a quarter of
# 1 - SSIM.
# ```

# %% tags=["hide-cell"]
for x in spoilt.values():
    near((x - digit).square().mean(), torch.tensor(error))
    near(laplacian_by_hand(x, digit), laplacian(x, digit))
    # pictures in [-1, 1] differ by twice
    parts = (x - digit).abs().mean() * 2 + 2 * laplacian(x, digit)
    parts = parts + (1 - ssim(x, digit).mean()) / 4
    near(parts, sharp(2 * x - 1, 2 * digit - 1))
assert terms["brighter"]["pyramid"] < 1e-5
assert max(terms, key=lambda n: terms[n]["pyramid"]) == "speckled"
# SSIM of one window, by hand
draw = seeded(seed, "window")
a, b = torch.rand(2, 1, 1, 7, 7, generator=draw)
covariance = ((a - a.mean()) * (b - b.mean())).mean()
up = (2 * a.mean() * b.mean() + 0.01**2) * (2 * covariance + 0.03**2)
variances = a.var(correction=0) + b.var(correction=0)
down = (a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (variances + 0.03**2)
near(up / down, ssim(a, b)[0])

# %% [markdown]
# ## Smoothness has a price
#
# The encoder gives a normal distribution for each number of the latent. The Kullback-Leibler term
# pulls them to the standard one: $\frac12\sum(\mu^2+\sigma^2-1-\log\sigma^2)$. With a large weight
# near-by latents mean near-by pictures, and details are lost in the noise of the latent. With a
# small one details stay, and the space between two latents may mean nothing.
#
# ```{admonition} Make a prediction
# Go in a straight line through the latents of the shipped prior, from one zero to another, and from
# a zero to a one. Is what lies between a digit?
# ```

# %% mystnb={"image": {"alt": "Two rows of nine pictures. In the first a zero turns into another zero, and all between are zeros. In the second a zero fades into a one; in the middle both are seen at once, in grey."}}
shipped = LatentDiffusionPrior.from_pretrained("digits")
images = digits.validation.float()
chosen = [
    digits.validation.class_positions(k)[i] for k, i in ((0, 0), (0, 1), (1, 0))
]
with torch.no_grad():
    z = shipped.encode(images[torch.stack(chosen)])
    shares = torch.linspace(0, 1, 9)
    lines = [torch.lerp(z[0], end, s) for end in z[1:] for s in shares]
    pictures = shipped.decode(torch.stack(lines))
fig = show(pictures, 9, row_labels=["0 to 0", "0 to 1"], scale=0.46)
# %% [markdown]
# *Decoded points of two straight lines through the latent space, in eight equal steps.*
#
# ```{admonition} Answer
# :class: dropdown
# Between two zeros, nearly. Between a zero and a one it is both at once: an autoencoder knows
# pieces of strokes, not digits. That is what the noise predictor is for.
# ```

# %% tags=["hide-cell"]
assert pictures.shape == (18, 3, 32, 32)
with torch.no_grad():
    encoded = shipped.autoencoder.encode(2 * images[:8] - 1).latent_dist
squares = encoded.mean**2 + encoded.var - 1 - encoded.logvar
near(0.5 * squares.sum((1, 2, 3)), encoded.kl())

# %% [markdown]
# ## Train, stop, go on
#
# Both stages save as they go. Here the training is asked to stop after every step, as a machine
# that is taken away would ask; then it goes on.
#
# ```{admonition} Make a prediction
# Four steps of the autoencoder, four of the noise predictor, a stop after each: are the weights
# those of a training that was left alone?
# ```

# %%
smoke = preset == "smoke"
folder = Path(tempfile.mkdtemp(prefix="prior-")) if smoke else Path(out)
stops = []
while smoke and len(stops) < 20:
    signals.stop_after(0)
    try:
        train_prior(config, data, folder, progress=False)
        break
    except signals.Interrupted as stopped:
        stops.append(str(stopped))
    finally:
        signals.stop_after(None)
mine = train_prior(config, data, folder, progress=not smoke)
print("stopped", len(stops), "times")
print(*[line.split(";")[0].split(": ")[-1] for line in stops], sep="\n")

# %% tags=["hide-cell"]
straight = mine
if smoke:
    alone = tempfile.mkdtemp(prefix="prior-")
    straight = train_prior(config, data, alone, progress=False)
count = 0
for m, n in zip(mine.modules, straight.modules, strict=True):
    both = zip(m.state_dict().values(), n.state_dict().values(), strict=True)
    for p, q in both:
        assert torch.equal(p, q)
        count += 1
print("equal tensors:", count)

# %% mystnb={"image": {"alt": "Three rows of eight pictures: real digits, what the autoencoder of the few steps makes of them, coloured specks on grey, and what the shipped autoencoder makes of them, the same digits."}}
with torch.no_grad():
    rows = [p.decode(p.encode(images[:8])) for p in (mine, shipped)]
fig = show(
    torch.cat([images[:8], *rows]),
    8,
    row_labels=["real", "mine", "shipped"],
)
# %% [markdown]
# *Digits through the autoencoder that was just trained (with `smoke`, for four steps), and through
# the shipped one.*
#
# ```{admonition} Answer
# :class: dropdown
# Yes, every tensor, bit for bit (asserted above): each draw belongs to its step, and not to what
# came before.
# ```
#
# ## What compression does to distillation
#
# Four small autoencoders of digits, alike but for one thing, and {term}`DM` through each;
# `python tools/measure_compression.py` made the record. Two numbers say what a latent space is
# like. PSNR: how much of the picture it keeps. *Pushed*: how far the picture moves when the latent
# moves by 0.3 standard deviations; small is smooth.
#
# ```{admonition} Make a prediction
# From 768 numbers a digit down to 48: how many points of accuracy does that cost?
# ```

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Two plots with a point for each of four autoencoders. On the left, PSNR against pushed: f = 2 keeps most and is smoothest, f = 8 keeps least and moves most, f = 4 with a large KL weight keeps less than f = 4 and is smoother. On the right, the accuracy of the three networks for each of the four: ConvNet is at ninety per cent for all, AlexNet falls with compression."}}
file = records / "compression-digits.json"
points = json.loads(file.read_text())["points"] if file.exists() else []
fig, (left, right) = plot(1, 2, figsize=(4.6, 3))
ticks = []
for p in points:
    name = f"f = {p['factor']}"
    if p["kl_weight"] > 1e-4:
        name += ",\nmore KL"
    ticks.append(name)
    left.plot(p["pushed"], p["psnr"], "o", color=BLUE, ms=7)
    left.annotate(
        name,
        (p["pushed"], p["psnr"]),
        (6, -4),
        textcoords="offset points",
        fontsize=9,
    )
styles = (("o-", BLUE), ("s--", ORANGE), ("^-.", PURPLE))
architectures = points[0]["accuracies"] if points else []
for a, (style, colour) in zip(architectures, styles, strict=False):
    means = [
        100 * sum(p["accuracies"][a]) / len(p["accuracies"][a]) for p in points
    ]
    right.plot(means, style, color=colour, label=a)
left.set(
    xlabel="pushed",
    ylabel="PSNR, dB",
    title="the latent space",
    xlim=(0.01, 0.066),
)
right.set(title="accuracy, %", ylim=(50, 95))
right.set_xticks(range(len(ticks)), ticks, rotation=50, fontsize=8)
_ = fig.legend(
    *right.get_legend_handles_labels(),
    loc="outside lower right",
    ncols=3,
    fontsize=8,
)
# %% [markdown]
# *Left, what each latent space keeps, and how smooth it is. Right, networks trained on ten digits
# that were distilled through it, means of three repeats; the ConvNet distilled.*
#
# ```{admonition} Answer
# :class: dropdown
# One point on the network that distilled; on the others the differences lie within the spread of
# the trainings. Here a sixteenth of the numbers is nearly enough.
# ```

# %% tags=["hide-cell"]
assert len(points) in (0, 4)
if points:
    wide, narrow = points[0], points[2]
    assert wide["psnr"] > narrow["psnr"] and wide["pushed"] < narrow["pushed"]

# %% [markdown]
# ## Exercises
#
# 1. Does the blur of `loss="mse"` show after a few steps? Train the preset `smoke` with both losses
#    and compare PSNR and SSIM. Why is the answer worth little?
# 2. `latent_channels=1` compresses by three more. How many numbers is a digit then, and how many
#    bytes against its picture?
# 3. Where on the line from 0 to 1 does a classifier change its mind? Is it the middle?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# After four steps neither has learned anything to speak of, so the numbers are equal. Train with
# `preset = "cpu"` to see what they become.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"]
rows = {}
for loss in ("mse", "sharp"):
    changed = prior_preset("smoke", seed=seed, loss=loss)
    place = tempfile.mkdtemp(prefix="prior-")
    made = train_prior(changed, digits, place, progress=False)
    with torch.no_grad():
        decoded = made.decode(made.encode(images[:50]))
    error = (decoded - images[:50]).square().mean()
    rows[loss] = {
        "PSNR, dB": -10 * error.log10().item(),
        "SSIM": ssim(decoded, images[:50]).mean().item(),
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# Eight by eight in one channel, at 32 px and $f = 4$: 64 numbers. In four bytes
# each that is a twelfth of the picture's 3,072 bytes.
# ```

# %% tags=["hide-cell"]
tiny = build_prior(prior_preset("smoke", latent_channels=1), digits.classes)
with torch.no_grad():
    latent = tiny.encode(images[:1])
print(
    tuple(latent.shape), "bytes:", 4 * latent.numel(), "of", images[0].numel()
)
assert latent.numel() == 64

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The nearest training image stands in for the classifier. In the folded cell it says 0, and from
# some place on 1; another digit may come between.
# ```

# %% tags=["hide-cell"]
known = digits.train.float().flatten(1)
nearest = torch.cdist(pictures[9:].flatten(1), known).argmin(1)
print("read as:", digits.train.labels[nearest].tolist())
assert (
    digits.train.labels[nearest[0]] == 0
    and digits.train.labels[nearest[-1]] == 1
)

# %% [markdown]
# **To take away.** A squared error asks for blur; absolute error, pyramid and SSIM together don't.
# A latent space that keeps more is not better for distillation by itself: on digits, sixteen times
# fewer numbers cost little that can be told from chance. The training of a prior can be stopped
# anywhere and ends at the same weights.
#
# **Next:** {doc}`../book/reference/differences` says where paper, code and book part. What makes a
# prior good is measured in part IV: {doc}`../book/experiments/good_prior`.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-diffusion)=
# # Walk a latent diffusion model
#
# How does noise become a digit, and which input decides what is drawn?
#
# **You will** take the shipped {term}`prior` apart: encode and decode digits, add noise, let the
# {term}`noise predictor` predict and remove it, walk from pure noise to a digit, and turn
# {term}`classifier-free guidance` up.
#
# **You will learn** the two directions of a diffusion model as LD3M uses them (section 2.2 of the
# paper), and which of its inputs decides what about the image.
#
# **You need** one CPU core, 1 GB of memory and half a minute (presets `smoke` and `cpu`). No GPU,
# no Internet: the prior comes with `ld3m_min`. The derivations are in
# {doc}`../book/background/22_diffusion_models`; (F), (P), (E), (R) and (C) in the code are its
# equations. What is claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# how many digits the guidance is measured on: smoke, or more
preset = os.environ.get("LD3M_PRESET", "cpu")
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/diffusion")  # for the sampled digits
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

import time
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import (
    SamplerConfig,
    generate,
    generate_latents,
    timesteps,
)

torch.set_grad_enabled(False)  # until the last section nothing is learned
data = load_data("digits")
prior = LatentDiffusionPrior.from_pretrained("digits")
viz.use_style()


def show(rows, row_labels, titles=None, columns=5, scale=0.6):
    """The first images of each row, as a grid."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 45})  # small files
    images = torch.cat([row[:columns] for row in rows])
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


def plot(height=2.8):
    """An empty plot as wide as a phone."""
    set_matplotlib_formats("png")
    figure, axis = plt.subplots(figsize=(4.6, height))
    axis.grid(alpha=0.3)
    return figure, axis


# %%
print(len(data.train), "images of", len(prior.classes), "classes")

# %% [markdown]
# ## Latent space
#
# An {term}`autoencoder` makes images small before anything else happens: the {term}`encoder` turns
# 3 × 32 × 32 numbers into 3 × 8 × 8, the {term}`decoder` turns them back.
#
# ```{admonition} Make a prediction
# One number of sixteen is kept. Which part of a digit is lost: thin strokes, edges, or the dark
# ground?
# ```

# %%
test, test_labels = data.test.float(), data.test.labels
# one test image of each class
some = [(test_labels == k).nonzero()[0, 0] for k in range(10)]
images, labels = test[torch.stack(some)], torch.arange(10)
Z = prior.encode(images)
decoded = prior.decode(Z)
print(tuple(images.shape), "->", tuple(Z.shape))
print("smaller by", images[0].numel() / Z[0].numel())

# %% mystnb={"image": {"alt": "Four rows of five digits, 0 to 4. The images and the decoded images look alike. The latents between them are coarse blocks that still have the digits' shapes. The differences, shown twenty times as strong, are speckles of both signs, mostly along the strokes."}}
everything = prior.encode(test)
low, high = everything.quantile(0.01), everything.quantile(0.99)
small = ((Z - low) / (high - low)).clamp(0, 1)
small = small.repeat_interleave(4, 2).repeat_interleave(4, 3)


def psnr(a, b):
    """Peak signal-to-noise ratio of each pair of images, in dB."""
    return -10 * (a - b).square().mean((1, 2, 3)).log10()


def signed(difference, limit):
    """Purple where darker, white at 0, orange where brighter."""
    grey = (difference.mean(1) / limit).clamp(-1, 1) / 2 + 0.5
    colours = torch.from_numpy(plt.get_cmap("PuOr_r")(grey.numpy()))
    return colours[..., :3].permute(0, 3, 1, 2).float()


fig = show(
    [images, small, decoded, signed(decoded - images, 0.05)],
    ["image", "latent", "decoded", "difference"],
    [f"{x:.0f} dB" for x in psnr(decoded, images)],
)
fig.suptitle(f"All ten: PSNR {psnr(decoded, images).mean():.0f} dB", fontsize=9)
fig.tight_layout(pad=0.3)
# %% [markdown]
# *The latent's three channels are shown as red, green and blue. Each of its pixels stands for a
# patch of 4 by 4. The full colour of a difference is a twentieth of the range from black to white.
# Above each column, the peak signal-to-noise ratio (PSNR) of the decoded digit.*
#
# ```{admonition} Answer
# :class: dropdown
# Not much of anything. The error is about a hundredth of the range from black to white; it follows
# the edges of the strokes, and speckles the ground a little.
# ```
#
# Noise comes next, and it has variance 1. So the latents should have one near it.

# %% mystnb={"image": {"alt": "A histogram of the latents' values, from about minus 3 to 3, over the bell curve of variance 1. The bars are a narrow peak at 0 with long tails, not a bell."}}
fig, axis = plot(2.2)
style = {"color": BLUE, "alpha": 0.6, "label": "latents"}
axis.hist(everything.flatten(), 60, density=True, **style)
x = torch.linspace(-3.5, 3.5, 100)
bell = (-x.square() / 2).exp() / (2 * torch.pi) ** 0.5
axis.plot(x, bell, "--", color=ORANGE, lw=2, label="normal, variance 1")
axis.set(xlabel="value", yticks=[])
axis.set_title("Latents of all test images", fontsize=11)
axis.legend(frameon=False, fontsize=9)
fig.tight_layout()
# %% [markdown]
# *All numbers of all test images' latents (bars), and the noise that they will be mixed with
# (line). The variance is as wanted. The shape isn't a bell, and needn't be: the peak is the digits'
# dark ground.*

# %% tags=["hide-cell"]
error = (decoded - images).square().mean()
assert 0 < error.item() < 1e-3, "lossy, but by little"
assert abs(everything.std().item() - 1) < 0.1, "variance near 1"

# %% [markdown]
# ## Forward: add noise
#
# The {term}`noise schedule` holds $\gamma_t$, in code `alpha_bar[t]`: the share of the variance
# that is still image after $t$ steps. One step keeps the share $\alpha_t = \gamma_t / \gamma_{t-1}$
# and fills up with noise. We follow mean and variance through all single steps, and compare with
# one jump by $\gamma_t$.
#
# ```{admonition} Make a prediction
# Of the thousand steps, a sampler with $T = 10$ visits every hundredth. After how many of them is
# half of the variance noise?
# ```

# %%
alpha_bar = prior.alpha_bar  # (1000,), float64
alpha = alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
visited = timesteps(10, prior.train_steps)
factor, variance, followed = 1.0, 0.0, []
for t in range(1000):
    factor = alpha[t].sqrt() * factor
    variance = alpha[t] * variance + (1 - alpha[t])
    followed.append((factor.item() ** 2, variance.item()))
print("visited:", visited)
print("less than half is image from t =", int((alpha_bar < 0.5).nonzero()[0]))

# %% mystnb={"image": {"alt": "A falling curve, the share of the image, and a rising one, the share of the noise, over t from 0 to 1000. They cross at one half. Ten circles on the falling curve mark the visited steps; the last one lies at almost zero. From t = 700 on, the image's share is almost nothing."}}
fig, axis = plot()
share, noise_share = zip(*followed, strict=True)
axis.plot(share, color=BLUE, lw=2, label="image, $\\gamma_t$")
axis.plot(noise_share, "--", color=ORANGE, lw=2, label="noise, $1-\\gamma_t$")
axis.plot(visited, alpha_bar[visited], "o", color="black", label="visited")
axis.set(xlabel="t", ylabel="share of the variance")
axis.set_title("How much of the image is left", fontsize=11)
axis.legend(frameon=False, fontsize=9)
fig.tight_layout()
# %% [markdown]
# *Image and noise after $t$ single steps (curves), and `alpha_bar` at the ten steps that the
# sampler visits (circles).*
#
# ```{admonition} Answer
# :class: dropdown
# After the third: at $t = 201$ more than half is image, at 301 less. The seven steps from there on
# work
# on what is mostly noise, and from $t = 701$ on less than a fiftieth of the variance is image.
# ```

# %% tags=["hide-cell"]
follow = torch.tensor(followed, dtype=torch.float64)
torch.testing.assert_close(follow[:, 0], alpha_bar.double())
torch.testing.assert_close(follow[:, 1], 1 - alpha_bar.double())
assert alpha_bar[201] > 0.5 > alpha_bar[301] and alpha_bar[701] < 0.02
assert visited == [1, *range(101, 1000, 100)]
assert (alpha_bar.diff() < 0).all() and 0 < alpha_bar[-1] < alpha_bar[0] < 1
columns = {
    "alpha_bar": alpha_bar[visited],
    "factor of the image": alpha_bar[visited].sqrt(),
    "factor of the noise": (1 - alpha_bar[visited]).sqrt(),
}
table = pd.DataFrame({name: x.tolist() for name, x in columns.items()})
table.set_index(pd.Index(visited, name="t")).round(4)

# %% [markdown]
# At the last step the image's factor is $\sqrt{\gamma_{901}} = 0.03$ (the table is in the folded
# cell): almost nothing of $\mathcal{Z}$ is left. What that looks like, decoded:

# %% mystnb={"image": {"alt": "Five rows of the digits 0 to 4, from t = 1 to t = 901. At 1 they are clean, at 301 rough, at 501 hard to read, and at 701 and 901 there are only grey blotches."}}
noise = torch.randn(Z.shape, generator=seeded(seed, "noise"))


def forward(Z, noise, t):  # (F)
    a = alpha_bar[t]
    return (a.sqrt() * Z + (1 - a).sqrt() * noise).float()


levels = (1, 301, 501, 701, 901)
fig = show(
    [prior.decode(forward(Z, noise, t)) for t in levels],
    [f"t = {t}" for t in levels],
)
# %% [markdown]
# *Five digits, each with a noise of its own, which is the same in every row. Only the mixture
# changes.*

# %% tags=["hide-cell"]
theirs = prior.scheduler.add_noise(Z, noise, torch.full((10,), 501))
ours = forward(Z, noise, 501)
torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

# %% [markdown]
# ## One guess
#
# The network $f_\theta(c, z_t, t)$ predicts the noise in $z_t$. Subtracting it gives a guess of the
# clean latent, $\hat z_0 = (z_t - \sqrt{1-\gamma_t}\,f_\theta) / \sqrt{\gamma_t}$.
#
# ```{admonition} Make a prediction
# From which of the five rows above can the network still see *which* digit it was? And where is its
# prediction of the noise better: at $t = 1$, where there is hardly any, or at $t = 901$?
# ```

# %% mystnb={"image": {"alt": "Five rows of guesses for the digits 0 to 4. From t = 1 and 301 they are the images. From 501 and 701 they are digits of the same class, a little smoother; the 1 from 701 is a blur. From 901 they are blotches that hint at the digit."}}
c = prior.class_conditioning(labels)


def guess(z, t, c):
    """f_theta, and the clean latent that it implies: (P)."""
    e, a = prior.predict_noise(z, torch.full((len(z),), t), c), alpha_bar[t]
    return e, ((z - (1 - a).sqrt() * e) / a.sqrt()).float()


guesses = {t: guess(forward(Z, noise, t), t, c) for t in visited}
fig = show(
    [prior.decode(guesses[t][1]) for t in levels],
    [f"from {t}" for t in levels],
)
# %% [markdown]
# *One guess, from each of the rows above. The class is given.*

# %%
es, zs = (torch.stack(x) for x in zip(*guesses.values(), strict=True))
noise_error = (es - noise).square().mean((1, 2, 3, 4))
image_error = (zs - Z).square().mean((1, 2, 3, 4))
odds = (1 - alpha_bar[visited]) / alpha_bar[visited]  # (E), squared
print("factor:", {t: float(f"{odds[visited.index(t)]:.2g}") for t in levels})

# %% mystnb={"image": {"alt": "Two curves over t on a logarithmic axis. The error of the noise falls, the error of the image rises, and they cross. Dotted lines lead from one to the other: times 0.003 at t = 1, times 7.8 at 501, times 1165 at 901."}}
fig, axis = plot(3.2)
axis.plot(visited, image_error, "o-", color=BLUE, label="image, $\\hat z_0$")
axis.plot(visited, noise_error, "s--", color=ORANGE, label="noise, $f_\\theta$")
for t, digits in ((1, ".3f"), (501, ".1f"), (901, ".0f")):
    i = visited.index(t)
    both = [noise_error[i], image_error[i]]
    axis.plot([t, t], both, ":", color=GREY)
    middle = (both[0] * both[1]).sqrt()
    text = f"× {odds[i]:{digits}} "
    axis.text(t, middle, text, ha="right", va="center", fontsize=10)
axis.set(xlabel="t", ylabel="mean squared error", yscale="log")
axis.set(xlim=(-200, 960), xticks=range(0, 1000, 200))
axis.set_title("One error, in two units", fontsize=11)
axis.legend(frameon=False, fontsize=9, loc="upper center")
fig.tight_layout()
# %% [markdown]
# *Error of the predicted noise and of the guess made of it, for ten digits. The dotted lines lead
# from one to the other: the image's error is the noise's, times $(1-\gamma_t)/\gamma_t$, equation
# (E) of the page.*
#
# ```{admonition} Answer
# :class: dropdown
# The class is given, so the right digit is drawn even from $t = 701$, where we saw only blotches.
# The noise is predicted best at $t = 901$: its error falls more than a hundredfold on the way. The
# image's error rises more than a thousandfold, since the factor does even more. At $t = 901$ it is
# above 1, the variance of the latents. A perfect network's guess could not be worse than an empty
# latent; this one's is, because a small error in the noise is multiplied by 1,165. And even a
# perfect guess from here would be an average of many digits. So a sampler takes several steps.
# ```

# %% tags=["hide-cell"]
at = [visited.index(t) for t in levels]
assert noise_error[0] > 100 * noise_error[-1]
assert image_error[-1] > 1000 * image_error[0] and image_error[-1] > 1
assert (noise_error[at].diff() < 0).all(), "with t, the noise is easier to see"
assert (image_error[at].diff() > 0).all(), "and the image harder"
torch.testing.assert_close(
    image_error.double(),
    noise_error * odds,
    rtol=1e-2,
    atol=0,
)

# %% [markdown]
# ## Backward: walk
#
# {term}`DDIM` takes the guess and adds the predicted noise again, but only as much as the next
# visited step has. Ten such steps lead from noise to a latent. By hand:


# %%
def step(z, t, t_next, c):
    e, x0 = guess(z, t, c)
    a = alpha_bar[t_next]
    return (a.sqrt() * x0 + (1 - a).sqrt() * e).float()  # (R), eta = 0


def walk(z, ts, c):
    for t, t_next in zip(ts, [*ts[1:], 0], strict=True):
        z = step(z, t, t_next, c)
    return z


ts = visited[::-1]
z_T = forward(Z, noise, ts[0])
results = {"by hand": walk(z_T, ts, c)}
print("steps", ts)

# %% [markdown]
# The package's loop and the scheduler of diffusers, fed with the same predictions, should come to
# the same latents. `NO_RESIDUAL` says that these are the plain steps: what LD3M adds to them is the
# subject of section 3.1.

# %% mystnb={"image": {"alt": "Three rows of the digits 0 to 4: by hand, by the package, by diffusers. The three rows look the same; the labels say that they differ by a few millionths at most."}}
plain = SamplerConfig(steps=10, guidance_scale=1.0, residual=NO_RESIDUAL)
results["package"] = generate_latents(prior, Z, c, noise, plain)
scheduler, z = prior.scheduler, z_T
scheduler.set_timesteps(10)
for t in scheduler.timesteps:
    e = prior.predict_noise(z, t.expand(10), c)
    z = scheduler.step(e, t, z, eta=0.0).prev_sample
results["diffusers"] = z
by_hand = results["by hand"]
apart = {n: (z - by_hand).abs().max().item() for n, z in results.items()}
fig = show(
    [prior.decode(z) for z in results.values()],
    [f"{n}\n± {d:.0e}" if d else n for n, d in apart.items()],
)
# %% [markdown]
# *The same ten steps, three times. Below the names, the largest difference of a latent from the one
# by hand: the rounding of float32.*

# %% tags=["hide-cell"]
assert scheduler.timesteps.tolist() == ts
near = torch.testing.assert_close
near(results["by hand"], results["package"], rtol=1e-5, atol=1e-4)
near(results["diffusers"], results["package"], rtol=1e-5, atol=1e-3)

# %% [markdown]
# A callback sees each step of `generate`. Here the digits start from pure noise
# ($\mathcal{Z} = 0$), with guidance 3 as in the paper.
#
# ```{admonition} Make a prediction
# Ten guesses follow each other. Which steps change the guess the most: the first ones, those in the
# middle, or the last?
# ```

# %%
seen, wanted = [], torch.tensor([0, 4, 8])
config = SamplerConfig(steps=10, guidance_scale=3.0, residual=NO_RESIDUAL)
start = torch.randn(3, *Z.shape[1:], generator=seeded(seed, "walk"))
code = prior.class_conditioning(wanted)
zero = torch.zeros_like(start)
final = generate_latents(prior, zero, code, start, config, callback=seen.append)
frames = torch.stack([s.predicted_x0 for s in seen], 1)
print("steps seen:", len(seen), "| frames", tuple(frames.shape))

# %% mystnb={"image": {"alt": "Above, three rows of ten small pictures: the guesses for a 0, a 4 and an 8, from t = 901 to t = 1. The first guesses are blurred, the last ones clean. Below, a bar for each step: how much it changed the guess. The first bar is by far the highest, and from t = 301 on hardly any is seen."}}
moves = frames.diff(dim=1).square().mean((0, 2, 3, 4))
set_matplotlib_formats("png")
fig, (film, axis) = plt.subplots(
    2,
    1,
    figsize=(4.6, 3.2),
    sharex=True,
    height_ratios=(3 * 32, 120),
)
pictures = prior.decode(frames.flatten(0, 1)).mean(1).unflatten(0, (3, 10))
strip = pictures.permute(0, 2, 1, 3).reshape(3 * 32, 10 * 32)
film.imshow(strip, cmap="gray", extent=(-0.5, 9.5, 3, 0), aspect="auto")
film.set(yticks=[0.5, 1.5, 2.5], yticklabels=wanted.tolist())
film.tick_params(length=0, labelbottom=False)
film.set_title("Ten guesses, and how much each step changed them", fontsize=10)
axis.bar(range(1, 10), moves, color=BLUE, width=0.7)
axis.set_xticks(range(10), [s.t for s in seen], fontsize=9)
axis.set(xlabel="t", ylabel="mean squared\nchange")
axis.grid(axis="y", alpha=0.3)
fig.tight_layout()
# %% [markdown]
# *Each column is one step's guess $\hat z_0$, decoded; the bar below it says how far it is from the
# guess before, in the latents.*
#
# ```{admonition} Answer
# :class: dropdown
# The first step, from $t = 901$ to 801, changes most, and from $t = 301$ on hardly anything moves.
# What is drawn is settled while $z_t$ is still nearly all noise; the rest is polish.
# ```

# %% tags=["hide-cell"]
last, a = seen[-1], alpha_bar[0]
assert moves[-1] < 0.1 * moves[0], "the guess settles"
assert moves.argmax() == 0 and moves[5:].max() < 0.1 * moves[0]
# the last state is the last guess, with noise of step 0
end = a.sqrt() * last.predicted_x0 + (1 - a).sqrt() * last.noise_prediction
near(final, end.float(), rtol=1e-5, atol=1e-5)

# %% [markdown]
# ## Guidance
#
# The prior was trained with the class, and now and then without, under a {term}`null class`.
# Guidance goes further in the direction in which the class changes the prediction,
# $e_u + s\,(e_c - e_u)$: 0 is no class, 1 the class as trained. One guess in the middle of the
# walk above, with each of the three:

# %% mystnb={"image": {"alt": "Three rows of guesses at t = 701, where a 0, a 4 and an 8 are asked for. With s = 0 they are grey and no clear digits. With s = 1 the digits can be read. With s = 3 their strokes are white and clear."}}
null = prior.null_conditioning(3)
middle = next(s for s in seen if s.t == 701)
kinds = {}
for name, s in (("s = 0", 0), ("s = 1", 1), ("s = 3", 3)):
    e_u, e_c = (guess(middle.z, middle.t, x)[0] for x in (null, code))
    e, a = e_u + s * (e_c - e_u), alpha_bar[middle.t]  # (C)
    kinds[name] = ((middle.z - (1 - a).sqrt() * e) / a.sqrt()).float()
fig = show([prior.decode(z) for z in kinds.values()], list(kinds), [0, 4, 8], 3)
# %% [markdown]
# *The same noisy state, guessed without the class, with it, and with three times the difference.
# The last row is what the sampler's own step saw.*

# %% tags=["hide-cell"]
near(kinds["s = 3"], middle.predicted_x0, rtol=1e-4, atol=1e-4)
first = seen[0]
e_u, e_c = (guess(first.z, first.t, x)[0] for x in (null, code))
near(first.noise_prediction, e_u + 3 * (e_c - e_u), rtol=1e-5, atol=1e-5)

# %% [markdown]
# And whole walks, for each class:

# %% mystnb={"image": {"alt": "Five rows of the digits 0 to 4, with guidance 0, 1, 3, 6 and 12. At 0 the row shows other digits than those asked for. At 1 and 3 each column is the digit asked for. At 6 and 12 the strokes are thick and saturated."}}
scales = (0.0, 1.0, 3.0, 6.0, 12.0)
everyone = prior.class_conditioning(torch.arange(10))


def sample(c, noise, scale, **changes):
    config = SamplerConfig(
        steps=10,
        guidance_scale=scale,
        residual=NO_RESIDUAL,
        **changes,
    )
    return generate(prior, torch.zeros_like(noise), c, noise, config)


sweep = [sample(everyone, noise, s) for s in scales]
figure = show(sweep, [f"s = {s:g}" for s in scales], list(data.classes))
Path(out).mkdir(parents=True, exist_ok=True)
figure.savefig(Path(out) / "guidance.png")
# %% [markdown]
# *Each column keeps its noise, and only the guidance changes.* In the first row the class has no
# say, further down it has more and more. Strokes become clearer, then exaggerated.
#
# To put a number on it, we label each generated digit by its nearest training image. How often is
# that the class that was asked for?
#
# ```{admonition} Make a prediction
# Draw the curve before you look: the share of digits read as asked, over guidance from 0 to 12.
# Where does it start, where is it highest, and does it fall again?
# ```

# %% tags=["nbval-ignore-output"]
each = 2 if preset == "smoke" else 6
asked = torch.arange(10).repeat_interleave(each)
many = torch.randn(len(asked), *Z.shape[1:], generator=seeded(seed, "judge"))
known = data.train.float().flatten(1)


def read(made):
    """The class of the nearest training image, (B,)."""
    nearest = torch.cdist(made.flatten(1), known).argmin(1)
    return data.train.labels[nearest]


real_share = (read(test) == test_labels).float().mean().item()
asked_code = prior.class_conditioning(asked)
swept = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0)
shares = {}
for s in swept:
    right = read(sample(asked_code, many, s)) == asked
    shares[s] = right.float().mean().item()
print(len(asked), "digits at each of", len(swept), "scales")

# %% mystnb={"image": {"alt": "Share of digits read as asked over guidance from 0 to 12. The curve starts near chance, one in ten, passes half at 0.5, and is at the height of real digits from 2 on. A dashed line marks real test digits, a dotted one chance."}}
fig, axis = plot()
axis.plot(swept, [100 * x for x in shares.values()], "o-", color=BLUE)
lines = (("real digits", 100 * real_share, "--"), ("chance", 10, ":"))
for name, y, style in lines:
    axis.axhline(y, ls=style, color=GREY)
    axis.text(12, y - 3, name, ha="right", va="top", fontsize=9, color=GREY)
axis.set(xlabel="guidance s", ylabel="read as asked, %", ylim=(0, 105))
axis.set_title("Does it draw what was asked for?", fontsize=11)
fig.tight_layout()
# %% [markdown]
# *Share of the generated digits whose nearest training image has the class that was asked for.*
#
# ```{admonition} Answer
# :class: dropdown
# It starts at chance, has nearly all digits at $s = 1$, and all of them from $s = 2$ on. It doesn't
# fall up to 12, although the strokes are exaggerated there: the nearest neighbour says which class
# is drawn, not how well.
# ```

# %% tags=["hide-cell"]
assert real_share > 0.95, "the nearest neighbour reads real digits"
assert shares[0.0] < 0.25, "no class, near chance"
assert shares[1.0] > 0.85, "the class as trained"
assert shares[3.0] >= shares[1.0], "guided, no worse"
assert shares[12.0] >= shares[1.0], "nor exaggerated"
# s = 0 doesn't look at c, and is the null class
other = sample(everyone.flip(0), noise, 0.0)
near(other, sweep[0], rtol=1e-5, atol=1e-5)
nobody = prior.null_conditioning(10)
near(sample(nobody, noise, 1.0), other, rtol=1e-5, atol=1e-4)

# %% [markdown]
# ## Noise and class, each alone
#
# DDIM has no noise of its own, so an image is a function of its initial noise and $c$. The
# {term}`ancestral sampler` ($\eta = 1$, equations (1) to (5)) adds fresh noise at each step; here
# it is derived from the initial noise, so that it too repeats itself.

# %% mystnb={"image": {"alt": "Three rows of six digits. In the first, one noise with the classes 0 to 5: six different digits. In the second, six noises with the class 3: six threes that look much alike. In the third, the same with the ancestral sampler: six threes, also alike."}}
one_noise = noise[:1].expand(10, -1, -1, -1)
three = prior.class_conditioning(torch.full((10,), 3))
rows = [
    sample(everyone, one_noise, 3.0),
    sample(three, noise, 3.0),
    sample(three, noise, 3.0, eta=1.0),
]
names = ("one noise,\nsix classes", "six noises,\none class", "ancestral")
fig = show(rows, names, columns=6, scale=0.55)
# %% [markdown]
# *The class says which digit, and the noise how it is written. With guidance 3 that is little: six
# noises make nearly one three. With guidance 1 they differ more.*

# %% tags=["hide-cell"]
for eta, row in zip((0.0, 1.0), rows[1:], strict=True):
    near(sample(three, noise, 3.0, eta=eta), row)  # repeats itself
    assert (read(row) == 3).float().mean().item() >= 0.8, "read as a 3"
# with guidance 1 they differ more
freer, held = sample(three, noise, 1.0), rows[1]
assert freer.var(0).mean() > 1.5 * held.var(0).mean()

# %% [markdown]
# $c$ is a vector of 32 numbers, and nothing confines it to the ten that the prior was trained with.
# Between two classes lie images of neither, and images that are one for a while and then the other:

# %% mystnb={"image": {"alt": "Four rows of seven pictures. From left to right a 4 becomes a 9, a 1 becomes a 7, a 3 becomes an 8, and a 5 becomes what the null class draws. In the middle of each row are digits between the two."}}
names = ["4 to 9", "1 to 7", "3 to 8", "5 to null"]
table = prior.class_embedding.weight  # (11, 32), the last is the null class
u = torch.linspace(0, 1, 7)[:, None]
rows = []
for a, b in ((4, 9), (1, 7), (3, 8), (5, 10)):
    between = ((1 - u) * table[a] + u * table[b])[:, None]
    rows.append(sample(between, one_noise[:7], 3.0))
print("codes", tuple(table.shape))
fig = show(rows, names, columns=7, scale=0.5)
# %% [markdown]
# *The code moves in seven equal steps from one class to the other; the noise is the same
# everywhere.*

# %% tags=["hide-cell"]
# the ends are the classes, and what lies between is a path
classes = sample(everyone[[1, 7]], one_noise[:2], 3.0)
near(rows[1][[0, -1]], classes, rtol=1e-5, atol=1e-4)
assert all((r[0] - r[-1]).norm() > (r[0] - r[2]).norm() for r in rows)

# %% [markdown]
# ## Who decides, the latent or the class?
#
# LD3M starts the walk from a noised latent of a real image, and learns both. So start from a digit
# $k$, but condition on the class $k + 1$.
#
# ```{admonition} Make a prediction
# Start with little noise, and the image stays what it was. Start with much, and the class wins.
# From which $t$ on is the start forgotten?
# ```

# %%
wrong = everyone.roll(-1, 0)  # the code of class k + 1
ends = {}
for t in visited:
    rest = [x for x in ts if x <= t]  # from t down to 1
    ends[t] = prior.decode(walk(forward(Z, noise, t), rest, wrong))
as_start = [(read(x) == labels).sum().item() for x in ends.values()]
as_asked = [(read(x) == (labels + 1) % 10).sum().item() for x in ends.values()]

# %% mystnb={"image": {"alt": "Six rows. The start shows the digits 0 to 4. From t = 101 and 301 they stay these digits. From 501 they begin to change, and from 901 they are the digits 1 to 5."}}
entries = (101, 301, 501, 701, 901)
fig = show(
    [images, *(ends[t] for t in entries)],
    ["start", *(f"from {t}" for t in entries)],
)
# %% mystnb={"image": {"alt": "Two curves over t, the number of ten digits read as the start's class and as the next class. The first falls from ten to none, the second rises from none to ten. They cross between t = 401 and 501."}}
fig, axis = plot()
axis.plot(visited, as_start, "o-", color=BLUE, label="the start's class k")
axis.plot(visited, as_asked, "s--", color=ORANGE, label="the class k + 1 of c")
axis.set(xlabel="t where the walk begins", ylabel="of ten digits, read as")
axis.set_title("Latent or class?", fontsize=11)
axis.legend(frameon=False, fontsize=9, loc="center left")
fig.tight_layout()
# %% [markdown]
# *Above, five starts and where they lead, from different depths of noise. Below, how many of ten
# are read as the class of the start, and as the class that $c$ asks for.*
#
# ```{admonition} Answer
# :class: dropdown
# Up to $t = 301$ all ten stay what they were, though more than half of the variance is noise there.
# Between 401 and 501 the class takes over. From 801 on all ten are the class $k + 1$, and the
# sampler with $T = 10$ starts at 901.
# ```
#
# ```{admonition} What that means for LD3M
# :class: ours
# Through the plain walk, hardly anything of $\mathcal{Z}$ reaches the image: to change it,
# $\mathcal{Z}$ would have to grow some thirtyfold, and act as a part of the noise. The paper's
# answer is the {term}`residual`, which brings the initial state back in at every step. Which
# initial state, the noised or the clean one, is then what matters.
# ```

# %% tags=["hide-cell"]
distance = [(ends[t] - images).square().mean() for t in entries]
assert all(a < b for a, b in pairwise(distance)), "further, the earlier"
assert as_start[visited.index(101)] >= 9, "from 101 it stays k"
assert as_asked[-1] >= 9, "from 901 it is k + 1"
assert as_start[visited.index(301)] >= 9 and as_asked[-2] >= 9

# %% [markdown]
# ## Through the walk, backwards
#
# Distillation needs the gradient of the image with respect to both codes. `generate` is an ordinary
# differentiable function, so autograd has it.

# %%
with torch.enable_grad():
    codes = [x[:2].clone().requires_grad_() for x in (Z, everyone)]
    picture = generate(prior, *codes, noise[:2], config)
    to_Z, to_c = torch.autograd.grad(picture.square().sum(), codes)
print("d image / dZ", tuple(to_Z.shape), "d image / dc", tuple(to_c.shape))

# %% tags=["hide-cell"]
assert all(g.isfinite().all() and g.norm() > 0 for g in (to_Z, to_c))
frozen = [p for m in prior.modules for p in m.parameters()]
assert not any(p.requires_grad for p in frozen), "the prior stays frozen"

# %% [markdown]
# ## Move it yourself
#
# Set `sliders = True` in the parameters, and the next cell has a slider for the class, the guidance
# and the number of steps. How few steps still draw a digit, and does more guidance need fewer?


# %% mystnb={"image": {"alt": "Three samples of the digit 7, drawn with guidance 3 in ten steps."}}
def three(k, guidance, T):
    """Samples of one class, from three noises."""
    config = SamplerConfig(
        steps=T, guidance_scale=guidance, residual=NO_RESIDUAL
    )
    start = torch.zeros_like(noise[:3])
    with torch.no_grad():
        made = generate(prior, start, everyone[[k] * 3], noise[:3], config)
    show([made], [f"s = {guidance:g}\nT = {T}"], columns=3, scale=1)
    plt.show()


viz.with_sliders(
    three,
    sliders,
    k=(7, *range(7), 8, 9),
    guidance=(3.0, 0.0, 1.0, 6.0, 12.0),
    T=(10, 1, 2, 5, 20),
)
# %% [markdown]
# *One class, three noises.*

# %% [markdown]
# ## Exercises
#
# 1. Walk in 2 steps, in 10 and in 50. What changes in the result, what in the seconds?
# 2. Guide with a negative scale by hand: $e_u - (e_c - e_u)$. What is drawn?
# 3. Why does the noise error fall with $t$ although the picture gets harder to see? Compare the
#    network at $t = 901$ with the answer $f = z_t$, which looks at nothing.

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# With 2 steps the strokes are pale and blurred, since each guess has to reach far; with 50 they are
# nearly those of 10, at five times the cost. {term}`DDIM` makes few steps possible
# because each ends where the exact ones would if the guess were right. The folded cell:
# ```

# %% tags=["hide-cell", "nbval-ignore-output"] mystnb={"image": {"alt": "Three rows of the digits 0 to 4, walked in 2, 10 and 50 steps. The first row is pale and blurred, the other two look almost the same; the labels give the seconds."}}
walks, labelled = [], []
for n in (2, 10, 50):
    began = time.perf_counter()
    few = timesteps(n, prior.train_steps)[::-1]
    deep = forward(0 * Z[:5], noise[:5], few[0])
    walks.append(prior.decode(walk(deep, few, c[:5])))
    labelled.append(f"{n} steps,\n{time.perf_counter() - began:.1f} s")
fig = show(walks, labelled)
# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# Anything but the class: the walk flees from it. `SamplerConfig` refuses such scales, so the folded
# cell walks by hand.
# ```

# %% tags=["hide-cell"] mystnb={"image": {"alt": "The columns ask for 0 to 4, with s = minus 1. None of the five pictures is the digit asked for: some are clear digits of another class, some are none."}}
z = noise
for t, t_next in zip(ts, [*ts[1:], 0], strict=True):
    e_u, e_c = (guess(z, t, x)[0] for x in (nobody, c))
    e, a, b = e_u - (e_c - e_u), alpha_bar[t], alpha_bar[t_next]
    x0 = (z - (1 - a).sqrt() * e) / a.sqrt()
    z = (b.sqrt() * x0 + (1 - b).sqrt() * e).float()
fled = prior.decode(z)
print("read as the class:", (read(fled) == labels).sum().item(), "of 10")
fig = show([fled], ["s = -1"], list(data.classes))
# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# Nearly all of $z_t$ is noise then, and $f = z_t$ is almost right. What is left to know, the image,
# has the weight $\sqrt{\gamma_t}$ in $z_t$. The folded cell has the two errors: on this small prior
# the network's is even the larger one. A walk forgives it, as the later steps correct the image.
# ```

# %% tags=["hide-cell"]
lazy = (z_T - noise).square().mean().item()
print(f"error of f = z_t at t = 901: {lazy:.1e}")
print(f"of the network, over it:     {noise_error[-1].item() / lazy:.1f}")
assert lazy < 0.01 < noise_error[0] and noise_error[-1] > lazy

# %% [markdown]
# **To take away.** A latent diffusion model mixes a small latent with noise by a fixed schedule,
# and learns to predict the noise. One guess from deep noise is poor, so a sampler takes several
# smaller steps, and gradients pass all of them. From $t = 901$, where ten steps begin, the class
# and the noise decide the image, and almost nothing of $\mathcal{Z}$ is left.
#
# **Next:** {doc}`../book/background/23_glad` and {doc}`23_distil_through_a_generator` distil with
# another generator; {doc}`../book/method/31_sampling` and {doc}`31_derive_the_ld3m_step` put the
# residual into the walk.

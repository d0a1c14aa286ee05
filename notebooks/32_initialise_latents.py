# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-initialise)=
# # Initialise the codes
#
# Where do the codes begin, and what of the real image is left when the sampler has run?
#
# **You will** start a distillation from real images in two ways, with the encoder and with an
# optimisation, and compare what they cost and what they give; then follow $\Z$ into $z_T$ and see
# what is left of it.
#
# **You will learn** why one pass of an encoder is all that LD3M needs, what $c$ starts from, and
# why the forward noise has to belong to the set.
#
# **You need** one CPU core, 1 GB of memory and half a minute (preset `smoke`; a minute with `cpu`).
# No GPU, no Internet. The page to it is {doc}`../book/method/32_initialisation`. What is claimed is
# also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# smoke: 100 steps of the optimisation; else 400
preset = os.environ.get("LD3M_PRESET", "smoke")
seed = 0  # of every random draw
# where the inversion's curve goes
out = os.environ.get("LD3M_OUT", "../runs/initialise_latents")
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

import math
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE
from ld3m_min.guidance import from_the_middle
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import (
    NO_RESIDUAL,
    PAPER_RESIDUAL,
    PUBLIC_RESIDUAL,
    Residual,
)
from ld3m_min.sampler import SamplerConfig, denoise, generate, timesteps
from ld3m_min.spaces import build_space, draw_initial_images
from ld3m_min.spaces.ld3m import forward_noise

viz.use_style()
data = load_data("digits")
prior = LatentDiffusionPrior.from_pretrained("digits")


def show(rows, row_labels, titles=None, columns=6, scale=0.55):
    """The first images of each row, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 50})
    images = torch.cat([row[:columns] for row in rows])
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


def plot(rows=1, columns=1, **kwargs):
    """Empty plots, as PNG."""
    set_matplotlib_formats("png")
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


def decibel(made, images):
    """PSNR: 10 more is a tenth of the squared error."""
    return -10 * (made - images).square().mean().log10().item()


# %% [markdown]
# ## From real images
#
# Every synthetic image starts as a real one of its class, drawn at random. The draw for a class
# depends on the seed and the class alone. One pass of the encoder makes its latent. The prior takes
# images in $[0, 1]$ and scales them to $[-1, 1]$, the range that its autoencoder was trained with.

# %%
images, labels = draw_initial_images(data, 1, seed)
with torch.no_grad():
    prior.encode(images)  # the first pass also sets things up
    began = time.perf_counter()
    Z = prior.encode(images)
    encoder_seconds = time.perf_counter() - began
    right = prior.decode(Z)
encoder_quality = decibel(right, images)
print(tuple(images.shape), "->", tuple(Z.shape))
print(f"PSNR {encoder_quality:.1f} dB, variance {Z.var():.2f}")

# %% [markdown]
# The public code encodes images that were normalised for a classifier instead, with ImageNet's mean
# and deviation.
#
# ```{admonition} Make a prediction
# Such values reach from -2 to 2.6, beyond $[-1, 1]$. What will come out of the decoder?
# ```

# %%
statistics = (IMAGENET_MEAN, IMAGENET_STD)
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in statistics)
with torch.no_grad():
    # + 1, / 2: undo encode's own scaling
    normalised = ((images - mean) / std + 1) / 2
    wrong = prior.decode(prior.encode(normalised))
losses = {"encoded": right, "normalised": wrong}

# %% mystnb={"image": {"alt": "Three rows of six digits: real, encoded and decoded, normalised and decoded. The second row looks like the first. The third has brighter and thicker strokes. The labels give the PSNR: 39 and 25 decibels."}}
some = [1, 3, 4, 7, 8, 9]
names = [f"{n},\n{decibel(x, images):.0f} dB" for n, x in losses.items()]
fig = show([x[some] for x in (images, right, wrong)], ["real", *names])
# %% [markdown]
# *Six digits, decoded from the latents of two encodings; the PSNR is over all ten.*
#
# ```{admonition} Answer
# :class: dropdown
# The same digits with brighter, thicker strokes, 14 decibels worse: the encoder was never shown
# such values. The distillation would start from other images than those that were drawn.
# ```

# %% tags=["hide-cell"]
assert encoder_quality > 30 and abs(Z.std().item() - 1) < 0.1
assert encoder_quality - decibel(wrong, images) > 10
assert torch.equal(images, draw_initial_images(data, 1, seed)[0])

# %% [markdown]
# ## Inversion by optimisation
#
# A generator without an encoder, a GAN for instance, has to be inverted:
# $\Z^* = \arg\min_\Z \Loss(y, G(\Z))$, one optimisation for each image. Here the decoder is
# inverted, with Adam, from zero. (For a GAN, $G$ is the whole generator; to invert LD3M's, with $T$
# steps of the U-Net, would cost some hundred times more.)
#
# ```{admonition} Make a prediction
# How many times as long as the encoder does the optimisation take to come as near to the images?
# Ten times, a hundred, a thousand? And will it ever come nearer?
# ```


# %%
def invert(steps, lr=0.2):
    """The latents found, and after every step (seconds, dB)."""
    found, history = torch.zeros_like(Z).requires_grad_(), []
    adam, began = torch.optim.Adam([found], lr=lr), time.perf_counter()
    for _ in range(steps):
        made = prior.decode(found)
        seconds = time.perf_counter() - began
        history.append((seconds, decibel(made.detach(), images)))
        adam.zero_grad()
        (made - images).square().mean().backward()
        adam.step()
    return found.detach(), history


inverted, history = invert(100 if preset == "smoke" else 400)
reached = [q > encoder_quality for _, q in history]
needed = reached.index(True)

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "PSNR over seconds on a logarithmic axis. The encoder is a single star at the far left. The curve of the inversion begins far to the right of it and far below, rises, and passes the star's height after more than a hundred times the star's seconds."}}
fig, axis = plot()
seconds, quality = zip(*history, strict=True)
axis.plot(seconds[1:], quality[1:], color=BLUE, label="inversion")
axis.plot(encoder_seconds, encoder_quality, "*", color=ORANGE, ms=14)
axis.text(encoder_seconds, encoder_quality - 1.5, "encoder", va="top")
axis.axhline(encoder_quality, lw=1, ls=":", color=GREY)
factor = seconds[needed] / encoder_seconds
axis.annotate(
    f"as good, after\n{factor:.0f} times as long",
    (seconds[needed], encoder_quality),
    (0.58, 0.12),
    textcoords="axes fraction",
    arrowprops={"arrowstyle": "->", "color": GREY},
)
axis.set(xlabel="seconds for ten digits", ylabel="PSNR, dB", xscale="log")
axis.set_title("Encoder and inversion")
Path(out).mkdir(parents=True, exist_ok=True)
fig.savefig(Path(out) / "inversion.png", dpi=100)
# %% [markdown]
# *How near the decoded image is to the real one, against the time that it took. The encoder is one
# point, the inversion a curve.*
#
# ```{admonition} Answer
# :class: dropdown
# The number is in the figure; it depends on the machine, and is a few hundred. With patience the
# optimisation passes the encoder.
# ```

# %% tags=["hide-cell"]
assert needed > 30, "the encoder's quality takes many steps"
assert seconds[needed] > 10 * encoder_seconds

# %% [markdown]
# ### The same image, another latent
#
# But look at what it found. The decoder maps many latents to nearly the same image, and the
# optimisation takes whichever is near.

# %% mystnb={"image": {"alt": "Four rows of six digits: decoded from the encoder's latent, decoded from the inverted latent, and the two latents as coloured blocks. The decoded digits look the same. The encoder's latents show the digit on an even ground; the inverted ones are noisy in other colours."}}
with torch.no_grad():
    again = prior.decode(inverted)
low, high = Z.quantile(0.01), Z.quantile(0.99)


def coloured(z):
    """The three channels as red, green and blue."""
    z = ((z - low) / (high - low)).clamp(0, 1)
    return z.repeat_interleave(4, 2).repeat_interleave(4, 3)


rows = [right, again, coloured(Z), coloured(inverted)]
names = ["decoded:\nencoder", "inversion", "latent:\nencoder", "inversion"]
fig = show([x[some] for x in rows], names)
# %% [markdown]
# *Two latents of each digit, and what the decoder makes of them. The channels are shown as colours,
# on one scale.*

# %% tags=["hide-cell"]
assert min(decibel(right, images), decibel(again, images)) > 38
assert (inverted - Z).norm() > Z.norm(), "apart by more than Z is long"
print(f"variance: encoder {Z.var():.2f}, inversion {inverted.var():.2f}")

# %% [markdown]
# For the diffusion model the two are not alike. It was trained to find the noise in noised latents
# **of the encoder**. How large is its squared error on either kind?
#
# ```{admonition} Make a prediction
# An error of 1 is that of predicting no noise at all. On which side of it are the two kinds?
# ```

# %%
c = prior.class_conditioning(labels)
noise = forward_noise(Z.shape, seed)


@torch.no_grad()
def noise_error(z, t):
    a = float(prior.alpha_bar[t])
    z_t = math.sqrt(a) * z + math.sqrt(1 - a) * noise
    found = prior.predict_noise(z_t, torch.full((len(z),), t), c)
    return (found - noise).square().mean().item()


kinds = {"encoder": Z, "inversion": inverted}
at = (1, 101, 301, 501, 701, 901)
errors = {name: [noise_error(z, t) for t in at] for name, z in kinds.items()}

# %% mystnb={"image": {"alt": "The squared error of the predicted noise over t, on a logarithmic axis, for latents of the encoder and of the inversion. The inversion's curve lies above the encoder's by a factor of ten or more up to t = 501 and it is above a dotted line at 1 up to t = 301; at t = 901 the two are nearest."}}
fig, axis = plot()
for (name, values), style in zip(errors.items(), ("o-", "s--"), strict=True):
    axis.plot(at, values, style, label=name)
axis.axhline(1, ls=":", color=GREY)
axis.text(900, 1.1, "no prediction", color=GREY, fontsize=9, ha="right")
axis.set(xlabel="t", ylabel="error of the noise", yscale="log")
axis.set_title("Does the prior know these latents?")
_ = axis.legend()
# %% [markdown]
# *The noise predictor's mean squared error on the ten latents of each kind, with one noise.*
#
# ```{admonition} Answer
# :class: dropdown
# The encoder's are far below. On the inverted ones the prior does worse than predicting nothing
# while $t$ is small. So the inversion costs more, and gives latents on which the prior errs many
# times as much.
# ```

# %% tags=["hide-cell"]
both = zip(*errors.values(), strict=True)
many = [b > 5 * a for a, b in both]
assert all(many[1:4]) and max(errors["encoder"][1:]) < 1
assert errors["inversion"][1] > 1

# %% [markdown]
# ## The conditioning
#
# $c$ starts as the embedding of the class, a row of a table that was trained with the prior. So at
# the start all images of a class share it; each has its own copy, and may leave.

# %% mystnb={"image": {"alt": "A picture of twenty rows of 32 coloured cells, labelled with the classes 0 to 9, two rows for each. The two rows of a class are equal; rows of different classes are not."}}
two, two_labels = draw_initial_images(data, 2, seed)
config = presets.preset("smoke", ipc=2, seed=seed)
space = build_space(config, two, two_labels, prior)
codes = space.parameters["c"]
fig, axis = plot(figsize=(4.6, 2.9))
table = codes.detach().flatten(1)
limit = table.abs().max()
extent = (0, table.shape[1], 10, 0)
style = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
axis.imshow(table, extent=extent, aspect="auto", **style)
axis.set(xlabel="the numbers of c", ylabel="class", xticks=[])
axis.set_yticks([k + 0.5 for k in range(10)], range(10))
axis.grid(False)
axis.hlines(range(1, 10), 0, table.shape[1], color="white", lw=2)
_ = axis.set_title("Two images of each class begin with one c")
# %% tags=["hide-cell"]
assert torch.equal(codes[0], codes[1]) and not torch.equal(codes[1], codes[2])
assert codes.is_leaf and codes.requires_grad
assert torch.equal(codes, prior.class_conditioning(two_labels))
torch.testing.assert_close(space.parameters["Z"], prior.encode(two))

# %% [markdown]
# *Each row is the $c$ of one image, two images a class; purple is negative, orange positive.*
#
# ## What $z_T$ keeps of $\Z$
#
# The sampler starts from $z_T = \sqrt{\gamma_T}\,\Z + \sqrt{1-\gamma_T}\,\varepsilon$. Could one
# tell from $z_T$ which of the ten codes it was made of? The best test compares inner products,
# $\langle z_T, \Z_j\rangle$. How often is it right, in a thousand draws of the noise for each code?
#
# ```{admonition} Make a prediction
# Guessing is right once in ten. How often is the best test, at $T = 10$, where the factor of $\Z$
# is 0.03? And at $T = 2$?
# ```


# %%
def recognised(T, draws=1000):
    last = timesteps(T, prior.train_steps)[-1]
    a = float(prior.alpha_bar[last])
    shape = (draws, *Z.shape)
    eps = torch.randn(shape, generator=seeded(seed, "recognise", T))
    z_T = math.sqrt(a) * Z + math.sqrt(1 - a) * eps
    product = math.sqrt(a) * z_T.flatten(2) @ Z.flatten(1).T
    score = product - a * Z.flatten(1).square().sum(1) / 2
    right = score.argmax(2) == torch.arange(10)
    return math.sqrt(a), right.float().mean().item()


lengths = (2, 4, 5, 10, 20, 40)
known = {T: recognised(T) for T in lengths}
print("factor of Z:", {T: round(known[T][0], 3) for T in (2, 10, 40)})

# %% mystnb={"image": {"alt": "The share of recognised codes over the number of steps T, on a logarithmic axis. It falls from almost all at T = 2 to about a sixth at 10 and 40, just above a dotted line at one in ten, chance."}}
fig, axis = plot()
share = [100 * known[T][1] for T in lengths]
axis.plot(lengths, share, "o-", color=BLUE)
axis.axhline(10, ls=":", color=GREY)
axis.text(2, 12, "chance", color=GREY, fontsize=9)
axis.set(xlabel="steps T", ylabel="recognised, %", xscale="log")
axis.set(ylim=(0, 102))
axis.set_xticks(lengths, lengths)
axis.minorticks_off()
_ = axis.set_title("Does the first state know where it came from?")
# %% [markdown]
# *How often the code that $z_T$ was made of is recognised among ten.*
#
# ```{admonition} Answer
# :class: dropdown
# At $T = 2$ nearly always. At $T = 10$ it is little better than guessing: $z_T$ does not know where
# it came from. So with a noised residual, or none, the images after the start are not the real ones
# that they were initialised with. With the public code's clean residual they are.
# ```

# %% tags=["hide-cell"]
assert known[2][1] > 0.9 and 0.1 < known[10][1] < 0.25
assert all(0.1 < known[T][1] < 0.25 for T in (20, 40))

# %% [markdown]
# ## The noise belongs to the set
#
# The same codes, two draws of the forward noise. Each pair below would be one and the same
# synthetic image.
#
# ```{admonition} Make a prediction
# Under which residual do the two images of a pair look the same?
# ```

# %%
VARIANTS = {
    "none": SamplerConfig(residual=NO_RESIDUAL),
    "eq. (6)": SamplerConfig(residual=PAPER_RESIDUAL, eta=1),
    "public": SamplerConfig(residual=PUBLIC_RESIDUAL),
}
other = forward_noise(Z.shape, seed, "another draw")
with torch.no_grad():
    pairs = {
        name: [generate(prior, Z, c, e, s) for e in (noise, other)]
        for name, s in VARIANTS.items()
    }
first, second = two.unflatten(0, (10, 2)).unbind(1)
unit = (first - second).square().mean().sqrt()
distance = {
    name: ((a - b).square().mean().sqrt() / unit).item()
    for name, (a, b) in pairs.items()
}

# %% mystnb={"image": {"alt": "Three rows of four pairs of digits: without residual, with equation (6), with the public code. In the first row the two of a pair are different digits of one class, in the second also with rough strokes, in the third nearly the same picture."}}
shown = [2, 4, 9]
grid = [
    torch.stack([a[shown], b[shown]], 1).flatten(0, 1)
    for a, b in pairs.values()
]
names = [f"{n},\n{d:.2f}" for n, d in distance.items()]
fig = show(grid, names, ["noise 1", "noise 2"] * 3, scale=0.62)
# %% [markdown]
# *Three pairs of digits; the codes of a pair are equal. The number is the distance of the two draws
# over all ten digits, relative to that of two different real images of a class.*
#
# ```{admonition} Answer
# :class: dropdown
# Under the public code's. With the others, the noise drawn again makes another image of the set in
# the loss, in the gradient, for each evaluated network and in the export.
# ```
#
# In the package the noise is drawn once, for each image by itself, and saved with the codes:

# %%
space = build_space(presets.preset("smoke", seed=seed), images, labels, prior)
print("the set holds", {k: tuple(v.shape) for k, v in space.state().items()})

# %% tags=["hide-cell"]
none, paper, public = distance.values()
assert public < 0.5 * none < paper
with torch.no_grad():
    assert torch.equal(space.images(), space.images())
# the noise of an image doesn't depend on the size of the set
small, large = (forward_noise((n, 3, 8, 8), seed) for n in (10, 20))
assert torch.equal(small, large[:10])

# %% [markdown]
# ## Move it yourself
#
# Set `sliders = True` in the parameters, and the next cell has a slider for the digit of $\Z$, that
# of $c$, and the residual. Who wins, and does it depend on the pair?


# %% mystnb={"image": {"alt": "Three digits. The one that Z comes from, the one that is generated from its Z under the class of another, and that other."}}
def who(Z_of, c_of, residual):
    """The digit of Z, what is generated, and the digit of c."""
    sampler = VARIANTS[residual]
    with torch.no_grad():
        made = generate(prior, Z[[Z_of]], c[[c_of]], noise[[Z_of]], sampler)
    row = torch.cat([images[[Z_of]], made, images[[c_of]]])
    titles = [f"Z of {Z_of}", residual, f"c of {c_of}"]
    show([row], [""], titles, columns=3, scale=1.1)
    plt.show()


digits = tuple(range(10))
viz.with_sliders(
    who,
    sliders,
    Z_of=(3, *digits[:3], *digits[4:]),
    c_of=(7, *digits[:7], *digits[8:]),
    residual=tuple(VARIANTS),
)
# %% [markdown]
# *Left and right, the real digits; in the middle, what is made of one's $\Z$ and the other's $c$.*
#
# The next cell has a slider for the weight of $\Z$ in the first step (1 is the public code's
# residual), one for the share of the steps that the prior takes (the rest of them change nothing),
# and one for $T$. At which share does a digit without the residual stop being its own?


# %% mystnb={"image": {"alt": "Two rows of ten digits. Above, what the codes decode to; below, what the sampler makes of them without the residual when the prior takes all ten steps: other digits of the same classes."}}
@dataclass(frozen=True)
class Scaled(Residual):
    """The public code's residual, times a number."""

    factor: float = 1.0

    def weight(self, k, n):
        """As the residual's own, times the factor."""
        return self.factor * super().weight(k, n)


def survive(weight, share, T):
    """The digits of Z, and what is left of them."""
    scaled = Scaled("x0", "clean", "linear", factor=weight)
    sampler = SamplerConfig(steps=T, guidance_scale=3.0, residual=scaled)
    plain = SamplerConfig(steps=T, guidance_scale=3.0, residual=NO_RESIDUAL)
    late = from_the_middle(prior, noise, plain, share)
    with torch.no_grad():
        z = denoise(prior, Z, c, noise, sampler, apply=late)
        made = prior.decode(z)
    show([right, made], ["decoded Z", f"weight {weight:g}"], columns=10)
    plt.show()
    print(
        f"PSNR {decibel(made, right):.1f} dB, {max(1, round(share * T))} steps"
    )


viz.with_sliders(
    survive,
    sliders,
    weight=(0.0, 0.25, 0.5, 0.75, 1.0),
    share=(1.0, 0.2, 0.4, 0.6, 0.8),
    T=(10, 5, 20),
)
# %% [markdown]
# *Above, what the codes decode to; below, what the sampler makes of them.*

# %% [markdown]
# ## Exercises
#
# 1. Start the inversion from the encoder's latent. What does it gain, and what does it lose?
# 2. Start LD3M from $\Z \sim \Normal(0, I)$ instead. For which residual does it matter?
# 3. At 128 px the latents are $3 \times 32 \times 32$. How well would $z_T$ be recognised there, at
#    $T = 10$?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# It gains some decibels at once, and the noise predictor's error grows: the latents leave the ones
# that the prior was trained on.
# ```

# %% tags=["hide-cell"]
found = Z.clone().requires_grad_()
adam = torch.optim.Adam([found], lr=0.02)
for _ in range(30):
    adam.zero_grad()
    (prior.decode(found) - images).square().mean().backward()
    adam.step()
found = found.detach()
with torch.no_grad():
    gained = decibel(prior.decode(found), images) - encoder_quality
lost = noise_error(found, 101) / noise_error(Z, 101)
print(f"gained {gained:.1f} dB; error of the noise at t = 101: x {lost:.2f}")
assert gained > 1 and lost > 1

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# For the clean one, whose images then are decoded noise mixed with digits. Without residual, or
# with equation (6), the images hardly change in kind, since $z_T$ was noise before.
# ```

# %% tags=["hide-cell"] mystnb={"image": {"alt": "Three rows of six pictures made from random latents: without residual and with equation (6) they are digits, with the public code coloured noise."}}
random = torch.randn(Z.shape, generator=seeded(seed, "random start"))
with torch.no_grad():
    made = [generate(prior, random, c, noise, s) for s in VARIANTS.values()]
fig = show([x[some] for x in made], list(VARIANTS))
# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The distance between two codes grows with the square root of their size, by a factor of four here.
# What counts is $\sqrt{\gamma_T}\,\norm{\Z_i - \Z_j} / 2$ in units of the noise. The folded cell
# simulates ten random codes of that size: recognised every second time.
# ```

# %% tags=["hide-cell"]
a = known[10][0] ** 2
large = torch.randn(10, 3072, generator=seeded(seed, "codes at 128 px"))
eps = torch.randn(300, 10, 3072, generator=seeded(seed, "their noise"))
z_T = math.sqrt(a) * large + math.sqrt(1 - a) * eps
score = math.sqrt(a) * z_T @ large.T - a * large.square().sum(1) / 2
right = (score.argmax(2) == torch.arange(10)).float().mean().item()
print(f"recognised: {100 * right:.0f} %")
assert 0.3 < right < 0.8

# %% [markdown]
# **To take away.** One pass of the encoder gives a better latent than hundreds of steps of an
# optimisation: the noise predictor knows the encoder's latents, and not the optimisation's. At $T =
# 10$ almost nothing of $\Z$ is left in $z_T$, so only a clean residual keeps the image that one
# started from. The forward noise is part of the set, and must be saved with it.
#
# **Next:** the gradient has to come back through all $T$ steps. Does it survive?
# {doc}`../book/method/34_gradient` measures it. {doc}`../book/method/33_memory` derives what it
# costs, and {doc}`33_trade_memory_for_time` measures that.

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
# **You will** start a distillation from real images in two ways, with the encoder and with an
# optimisation, and compare what they cost and what they give; then follow $\Z$ into $z_T$ and see
# what is left of it.
#
# **You will learn** why one pass of an encoder is all that LD3M needs, what $c$ starts from, and
# why the forward noise has to belong to the set.
#
# **You need** one CPU core and half a minute. The page to it is
# {doc}`../book/method/32_initialisation`.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "smoke")  # smoke: 100 steps of the optimisation; else 400
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/initialise_latents")  # where the inversion's curve goes

# %%
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ld3m_min.experiments import figures as viz
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL, PAPER_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate, timesteps
from ld3m_min.spaces import build_space, draw_initial_images
from ld3m_min.spaces.ld3m import forward_noise

data, prior = load_data("digits"), LatentDiffusionPrior.from_pretrained("digits")


def decibel(made, images):
    """Peak signal-to-noise ratio: 10 more is a tenth of the squared error."""
    return -10 * (made - images).square().mean().log10().item()


# %% [markdown]
# ## From real images
#
# Every synthetic image starts as a real one of its class, drawn at random. The draw for a class
# depends on the seed and the class alone.

# %%
images, labels = draw_initial_images(data, 1, seed)
print(tuple(images.shape), labels.tolist())

# %% [markdown]
# ## The encoder
#
# One pass. The prior takes images in $[0, 1]$ and scales them to $[-1, 1]$, the range that its
# autoencoder was trained with; its latents have about variance one.

# %%
began = time.perf_counter()
with torch.no_grad():
    Z = prior.encode(images)
encoder_seconds = time.perf_counter() - began
with torch.no_grad():
    encoder_quality = decibel(prior.decode(Z), images)
print(
    "Z",
    tuple(Z.shape),
    "above 30 dB:",
    encoder_quality > 30,
    "| variance near 1:",
    abs(Z.std().item() - 1) < 0.1,
)

# %% [markdown]
# The public code encodes images that were normalised for a classifier instead, with ImageNet's mean
# and deviation. They reach beyond $[-1, 1]$, and what comes out of the decoder is no longer the
# image:

# %%
mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
with torch.no_grad():
    # + 1, / 2: undo encode's own scaling
    wrong = prior.decode(prior.encode(((images - mean) / std + 1) / 2))
    right = prior.decode(Z)
print("worse by more than 10 dB:", decibel(right, images) - decibel(wrong, images) > 10)
columns = [1, 3, 4, 7, 8, 9]
_ = viz.image_grid(
    torch.cat([x[columns] for x in (images, right, wrong)]),
    6,
    row_labels=["real", "encoded,\ndecoded", "normalised,\nencoded"],
    scale=0.8,
)

# %% [markdown]
# ## Inversion by optimisation
#
# A generator without an encoder, a GAN for instance, has to be inverted:
# $\Z^* = \arg\min_\Z \Loss(y, G(\Z))$, one optimisation for each image. Here the decoder is
# inverted, with Adam, from zero. (For a GAN, $G$ is the whole generator; to invert LD3M's, with $T$
# steps of the U-Net, would cost some hundred times more.)


# %%
def invert(steps, lr=0.2):
    """The latents found, and after every step (seconds, dB)."""
    found, history, began = torch.zeros_like(Z).requires_grad_(), [], time.perf_counter()
    adam = torch.optim.Adam([found], lr=lr)
    for _ in range(steps):
        made = prior.decode(found)
        history.append((time.perf_counter() - began, decibel(made.detach(), images)))
        adam.zero_grad()
        (made - images).square().mean().backward()
        adam.step()
    return found.detach(), history


inverted, history = invert(100 if preset == "smoke" else 400)
needed = next(i for i, (_, quality) in enumerate(history) if quality > encoder_quality)
print("the encoder's quality is reached after more than 30 steps:", needed > 30)

# %% tags=["nbval-ignore-output"]
print(
    f"encoder: {encoder_quality:.1f} dB in {encoder_seconds:.3f} s; "
    f"inversion: as good after {needed} steps, {history[needed][0]:.1f} s, "
    f"{history[needed][0] / encoder_seconds:.0f} times as long"
)

# %% tags=["nbval-ignore-output"]
fig, axis = plt.subplots(figsize=(6, 2.6))
axis.plot([s for s, _ in history], [q for _, q in history], label="inversion")
axis.plot([encoder_seconds], [encoder_quality], "o", label="encoder")
axis.axhline(encoder_quality, lw=0.8, ls=":", c="grey")
axis.set(xlabel="seconds", ylabel="quality, dB", xlim=(0, None))
axis.legend(frameon=False)
axis.grid(alpha=0.3)
fig.tight_layout()
Path(out).mkdir(parents=True, exist_ok=True)
fig.savefig(Path(out) / "inversion.png", dpi=100)
# %% [markdown]
# ### The same image, another latent
#
# With patience the optimisation beats the encoder. But look at what it found: the decoder maps many
# latents to nearly the same image, and the optimisation takes whichever is near, not one that the
# diffusion model has met in its training.

# %%
with torch.no_grad():
    report = {
        name: {
            "above 38 dB": decibel(prior.decode(z), images) > 38,
            "variance near 1": abs(z.std().item() - 1) < 0.1,
        }
        for name, z in {"encoder": Z, "inversion": inverted}.items()
    }
print("distance of the two, above the norm of Z:", ((inverted - Z).norm() > Z.norm()).item())
pd.DataFrame(report).T

# %% [markdown]
# For the diffusion model the two are not alike. It was trained to find the noise in noised latents
# **of the encoder**. How large is its squared error on either kind, at three steps?

# %%
c, noise = prior.class_conditioning(labels), forward_noise(Z.shape, seed)


@torch.no_grad()
def noise_error(z, t):
    a = float(prior.alpha_bar[t])
    z_t = math.sqrt(a) * z + math.sqrt(1 - a) * noise
    return (prior.predict_noise(z_t, torch.full((len(z),), t), c) - noise).square().mean().item()


errors = {
    t: {"encoder": noise_error(Z, t), "inversion": noise_error(inverted, t)}
    for t in (101, 301, 501)
}
print(
    "more than five times the error:",
    {t: e["inversion"] > 5 * e["encoder"] for t, e in errors.items()},
)

# %% tags=["nbval-ignore-output"]
pd.DataFrame(errors).T.rename_axis("step").round(3)

# %% [markdown]
# An error above 1 is worse than predicting no noise at all. So the inversion costs more and gives
# latents that the prior knows nothing of. That is an argument for the encoder that the paper does
# not make.
#
# ## The conditioning
#
# $c$ starts as the embedding of the class, a row of a table that was trained with the prior. So at
# the start all images of a class share it; each has its own copy, and may leave.

# %%
two, two_labels = draw_initial_images(data, 2, seed)
space = build_space(presets.preset("smoke", ipc=2, seed=seed), two, two_labels, prior)
start = space.parameters["c"]
print(
    "c",
    tuple(start.shape),
    "| equal within a class:",
    torch.equal(start[0], start[1]),
    "| one leaf for each image:",
    start.is_leaf and start.requires_grad,
)
assert torch.equal(start, prior.class_conditioning(two_labels)) and torch.allclose(
    space.parameters["Z"], prior.encode(two)
)

# %% [markdown]
# ## What z_T keeps of Z
#
# The sampler starts from $z_T = \sqrt{\gamma_T}\,\Z + \sqrt{1-\gamma_T}\,\varepsilon$. Could one
# tell from $z_T$ which of the ten codes it was made of? The best test compares inner products,
# $\langle z_T, \Z_j\rangle$. How often it is right, in a thousand draws of the noise for each code:


# %%
def recognised(T, draws=1000):
    a = float(prior.alpha_bar[timesteps(T, prior.train_steps)[-1]])
    eps = torch.randn((draws, *Z.shape), generator=seeded(seed, "recognise", T))
    z_T = math.sqrt(a) * Z + math.sqrt(1 - a) * eps
    score = math.sqrt(a) * z_T.flatten(2) @ Z.flatten(1).T - a * Z.flatten(1).square().sum(1) / 2
    return a, (score.argmax(2) == torch.arange(10)).float().mean().item()


rows = {
    T: dict(zip(("gamma_T", "recognised"), recognised(T), strict=True))
    for T in (2, 4, 5, 10, 20, 40)
}
pd.DataFrame(rows).T.rename_axis("T").assign(factor=lambda x: x["gamma_T"] ** 0.5).round(3)

# %% [markdown]
# At $T = 10$ it is little better than the one in ten of guessing: $z_T$ does not know where it came
# from. So with a noised residual, or none, the images after the start are not the real ones that
# they were initialised with. With the public code's clean residual they are.
#
# ## The noise belongs to the set
#
# The same codes, two draws of the forward noise. Each pair below would be one and the same
# synthetic image:

# %%
VARIANTS = {
    "no residual": SamplerConfig(residual=NO_RESIDUAL),
    "equation (6)": SamplerConfig(residual=PAPER_RESIDUAL, eta=1),
    "public code": SamplerConfig(residual=PUBLIC_RESIDUAL),
}
other = forward_noise(Z.shape, seed, "another draw")
with torch.no_grad():
    pairs = {
        name: [generate(prior, Z, c, e, s) for e in (noise, other)] for name, s in VARIANTS.items()
    }
shown = [2, 4, 7, 9]
grid = [torch.stack([a[shown], b[shown]], 1).flatten(0, 1) for a, b in pairs.values()]
_ = viz.image_grid(torch.cat(grid), 8, row_labels=list(pairs), scale=0.75)

# %% [markdown]
# As a number: the distance of the two draws, relative to that of two different real images of a
# class.

# %%
first, second = two.unflatten(0, (10, 2)).unbind(1)
unit = (first - second).square().mean().sqrt()
distance = {name: ((a - b).square().mean().sqrt() / unit).item() for name, (a, b) in pairs.items()}
assert distance["public code"] < 0.5 * distance["no residual"] < distance["equation (6)"]

# %% tags=["nbval-ignore-output"]
print({name: round(d, 2) for name, d in distance.items()})

# %% [markdown]
# Drawn again, the noise makes another image of the set in the loss, in the gradient, for each
# evaluated network and in the export. In the package it is drawn once, for each image by itself,
# and saved with the codes:

# %%
space = build_space(presets.preset("smoke", seed=seed), images, labels, prior)
with torch.no_grad():
    print("the same image every time:", torch.equal(space.images(), space.images()))
print(
    "noise of the first images, whatever the size of the set:",
    torch.equal(forward_noise((10, 3, 8, 8), seed), forward_noise((20, 3, 8, 8), seed)[:10]),
)
print("the set holds", sorted(space.state()))

# %% [markdown]
# ## Exercises
#
# 1. Start the inversion from the encoder's latent. What does it gain, and what does it lose?
# 2. Start LD3M from $\Z \sim \Normal(0, I)$ instead. For which residual does it matter?
# 3. At 128 px the latents are $3 \times 32 \times 32$. How well would $z_T$ be recognised there, at
#    $T = 10$?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. `found = Z.clone().requires_grad_()` in `invert` gains some decibels at once, and the latents
#    leave variance one.
# 2. For the clean one, whose images then are decoded noise mixed with digits. Without residual, or
#    with equation (6), the images hardly change in kind, since $z_T$ was noise before.
# 3. The distance between two codes grows with the square root of their size, by a factor of four
#    here. What counts is $\sqrt{\gamma_T}\,\norm{\Z_i - \Z_j} / 2$ in units of the noise: from
#    about 0.3 to more than 1. In a simulation with ten random codes of that size it is right every
#    second time.
# ```
#
# **Next**: {doc}`33_trade_memory_for_time`.

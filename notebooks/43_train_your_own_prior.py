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
# **You will** compute by hand the three terms that keep an autoencoder sharp, train both halves of
# a prior, stop in the middle and go on bit for bit, and look at what a latent space does to
# pictures.
#
# **You will learn** what makes a latent space good for distillation: reconstruction against
# smoothness, and compression.
#
# **You need** one CPU core and half a minute. The page to it is
# {doc}`../book/experiments/43_own_prior`.

# %% tags=["parameters"]
import os

# smoke: a few steps on digits; cpu: the shipped digits prior; gpu: ImageNette
preset = os.environ.get("LD3M_PRESET", "smoke")
out = os.environ.get("LD3M_OUT", "../runs/train_your_own_prior")  # where checkpoints go
seed = 0  # of every random draw

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.io import stop as signals
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.losses import laplacian, sharp, ssim
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.train import train_prior

names = {"smoke": "smoke", "cpu": "digits", "gpu": "imagenette-128", "paper": "imagenette-128"}
config = prior_preset(names[preset], seed=seed)
records = Path("../book/_data/records")

# %% [markdown]
# ## Two networks
#
# A prior is an autoencoder and a noise predictor on its latents. The autoencoder halves the sides
# at each level but the first. How many numbers stand for one picture of 128 px?

# %%
rows = []
for levels in (2, 3, 4):
    factor = 2 ** (levels - 1)
    rows.append(
        {
            "f": factor,
            "latent": f"3 x {128 // factor} x {128 // factor}",
            "numbers": 3 * (128 // factor) ** 2,
            "compression": factor**2,
        }
    )
pd.DataFrame(rows).set_index("f")

# %%
wanted = prior_preset("imagenette-128")
prior = build_prior(wanted, tuple("abcdefghij"))
millions = [sum(p.numel() for p in m.parameters()) / 1e6 for m in prior.modules]
assert 2 * sum(millions) < 24  # MB in bfloat16
print(
    f"f = {prior.factor}, {prior.latent_channels} channels; "
    f"autoencoder {millions[0]:.2f} M, noise predictor {millions[1]:.2f} M parameters"
)

# %% [markdown]
# ## Why not the squared error
#
# A decoder that can't know where an edge is has to bet. Let an edge stand at pixel 10 in two of
# three pictures and at 14 in the third. The squared error is least at the mean, a grey ramp that is
# none of the three. The absolute error is least at the median, which is one of them.

# %%
edges = torch.stack([(torch.arange(24) >= k).float() for k in (10, 10, 14)])
mean, median = edges.mean(0), edges.median(0).values
grid = torch.linspace(0, 1, 101)[:, None, None]
best_l2 = grid[(grid - edges).square().mean(1).argmin(0), 0, 0]
best_l1 = grid[(grid - edges).abs().mean(1).argmin(0), 0, 0]
torch.testing.assert_close(best_l2, mean, atol=0.01, rtol=0)
torch.testing.assert_close(best_l1, median, atol=0.01, rtol=0)
print(
    "grey pixels in the best answer:",
    "squared",
    int(((mean > 0) & (mean < 1)).sum()),
    "absolute",
    int(((median > 0) & (median < 1)).sum()),
)

# %% [markdown]
# ## Edges at every scale
#
# A Laplacian pyramid splits a picture into what each coarser copy lacks. An error of one pixel's
# size is all in the finest level; a wrong brightness is in none. By hand:

# %%
g = torch.Generator().manual_seed(seed)
x, y = torch.rand(2, 3, 16, 16, generator=g), torch.rand(2, 3, 16, 16, generator=g)
rest, by_hand = x - y, torch.zeros(())
for _ in range(3):
    coarse = rest.reshape(2, 3, rest.shape[2] // 2, 2, rest.shape[3] // 2, 2).mean((3, 5))
    by_hand = by_hand + (rest - coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)).abs().mean()
    rest = coarse
torch.testing.assert_close(by_hand, laplacian(x, y))
assert laplacian(x + 0.5, x) < 1e-6
print("equal:", bool(torch.isclose(by_hand, laplacian(x, y))))

# %% [markdown]
# ## Contrast, not only brightness
#
# SSIM compares mean, variance and covariance in small windows. For one window:

# %%
a, b = x[:1, :1, :7, :7], y[:1, :1, :7, :7]
covariance = ((a - a.mean()) * (b - b.mean())).mean()
up = (2 * a.mean() * b.mean() + 0.01**2) * (2 * covariance + 0.03**2)
down = (a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (
    a.var(correction=0) + b.var(correction=0) + 0.03**2
)
torch.testing.assert_close(up / down, ssim(a, b)[0])
# pictures in [-1, 1] differ by twice
whole = (x - y).abs().mean() * 2 + 2 * laplacian(x, y) + (1 - ssim(x, y).mean()) / 4
torch.testing.assert_close(whole, sharp(2 * x - 1, 2 * y - 1))
print("equal:", bool((up / down - ssim(a, b)[0]).abs() < 1e-5))

# %% [markdown]
# ## Smoothness has a price
#
# The encoder gives a normal distribution for each number of the latent. The Kullback-Leibler term
# pulls them to the standard one: $\frac12\sum(\mu^2+\sigma^2-1-\log\sigma^2)$. With a large weight
# near-by latents mean near-by pictures, and details are lost in the noise of the latent; with a
# small one details stay, and the space between two latents may mean nothing.

# %%
data = (
    load_data(config.dataset, size=config.size)
    if config.dataset == "digits" or "LD3M_DATA" in os.environ
    else load_data("digits")
)
shipped = LatentDiffusionPrior.from_pretrained("digits")
digits = load_data("digits")
held = digits.validation.float()
with torch.no_grad():
    posterior = shipped.autoencoder.encode(2 * held[:8] - 1).latent_dist
    by_hand = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum((1, 2, 3))
torch.testing.assert_close(by_hand, posterior.kl())
print(
    "shape of the latents:",
    tuple(posterior.mean.shape),
    "  equal:",
    bool(torch.allclose(by_hand, posterior.kl())),
)

# %% [markdown]
# From one zero to another zero, and from a zero to a one, in a straight line through the latents of
# the shipped prior:

# %%
zero, other, one = (digits.validation.class_positions(k)[i] for k, i in ((0, 0), (0, 1), (1, 0)))
with torch.no_grad():
    z = shipped.encode(held[torch.stack([zero, other, one])])
    lines = [torch.lerp(z[0], end, s) for end in (z[1], z[2]) for s in torch.linspace(0, 1, 9)]
    pictures = shipped.decode(torch.stack(lines))
assert pictures.shape == (18, 3, 32, 32)
viz.image_grid(pictures, columns=9, row_labels=["0 to 0", "0 to 1"])
plt.show()

# %% [markdown]
# ## Train, stop, go on
#
# Both stages save as they go. Here the training is asked to stop after every step, as a machine
# that is taken away would ask; then it goes on. The result is the same, bit for bit, since every
# draw belongs to its step and not to what came before.

# %%
folder = Path(tempfile.mkdtemp(prefix="prior-")) if preset == "smoke" else Path(out)
stops, said = 0, None
while preset == "smoke" and stops < 20:
    signals.stop_after(0)
    try:
        train_prior(config, data, folder, progress=False)
        break
    except signals.Interrupted as stopped:
        stops, said = stops + 1, said or str(stopped)
    finally:
        signals.stop_after(None)
mine = train_prior(config, data, folder, progress=preset != "smoke")
print("stopped:", stops, "times; the first time it said:", said, sep="\n")

# %%
if preset == "smoke":
    straight = train_prior(config, data, tempfile.mkdtemp(prefix="prior-"), progress=False)
    pairs = [
        (p, q)
        for m, n in zip(mine.modules, straight.modules, strict=True)
        for p, q in zip(m.state_dict().values(), n.state_dict().values(), strict=True)
    ]
    assert all(torch.equal(p, q) for p, q in pairs)
    print(len(pairs), "tensors, all equal: True")

# %% [markdown]
# ## What compression does to distillation
#
# Four small autoencoders of digits, alike but for one thing, and DM through each;
# `python tools/measure_compression.py` made the record. `pushed` is how far the picture moves when
# the latent moves by 0.3 standard deviations: small is smooth.

# %% tags=["nbval-ignore-output"]
file = records / "compression-digits.json"
record = json.loads(file.read_text()) if file.exists() else {"points": []}
rows = [
    {
        "f": p["factor"],
        "KL weight": p["kl_weight"],
        "numbers": p["numbers"],
        "PSNR, dB": p["psnr"],
        "pushed": p["pushed"],
        **{a: round(100 * sum(v) / len(v), 1) for a, v in p["accuracies"].items()},
    }
    for p in record["points"]
]
pd.DataFrame(rows)

# %% [markdown]
# ## Try it
#
# 1. Give the loss of the shipped digits prior another name (`loss="sharp"`), train with
#    `preset = "cpu"`, and compare PSNR and SSIM. Which loss wins which?
# 2. `PriorConfig(latent_channels=1)` compresses by three more. Does DM still work?
# 3. Where on the line from 0 to 1 does a classifier change its mind? Is it the middle?

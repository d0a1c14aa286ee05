# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-quickstart)=
# # Distil ten digits
#
# **You will** distil 1,000 real images of handwritten digits into ten synthetic ones, one for each
# class, with LD3M; look at them; and train networks that took no part in the distillation on
# nothing but these ten images.
#
# **You will learn** what Z, c and the forward noise are, how a distillation loss moves them through
# a frozen diffusion model, and how to judge the result against two baselines under one protocol.
#
# **You need** two CPU cores and three minutes. No network, no GPU: the data come with scikit-learn,
# the prior with `ld3m_min`.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "cpu")  # smoke or cpu
iterations = None  # of the distillation; None: the preset's
repeats = 2  # trainings per network; the preset has 5
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/quickstart")

# %%
from pathlib import Path

import torch

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments import figures as viz
from ld3m_min.io.files import write_json
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil, random_real
from ld3m_min.synthetic import SyntheticSet

# %% [markdown]
# ## The real data and the prior
#
# The digits come in three parts. The training images are distilled; the validation images chose the
# learning rates that the preset holds; the test images choose nothing: ten of them show below what
# the prior keeps, and all of them test the networks at the end of this page.

# %%
data = load_data("digits")
sizes = {s: len(data.split(s)) for s in ("train", "validation", "test")}
print(sizes, f"{data.size} px", "classes", *data.classes)

# %% [markdown]
# The prior is a latent {term}`diffusion model`: an autoencoder and a {term}`noise predictor`, both
# frozen. It turns an image of 32 by 32 pixels and three channels into a latent of 8 by 8 and three
# channels.

# %%
prior = LatentDiffusionPrior.from_pretrained("digits")
images = data.test.float()[:10]
Z = prior.encode(images)
c = prior.class_conditioning(data.test.labels[:10])
print("image", tuple(images.shape), "Z", tuple(Z.shape), "c", tuple(c.shape))

decoded = prior.decode(Z)
assert (decoded - images).square().mean() < 1e-3, "too much is lost"
_ = viz.image_grid(torch.cat([images, decoded]), row_labels=["real", "decoded"])

# %% [markdown]
# ## Distil
#
# Each synthetic image starts from a real one: Z is its latent, c the embedding of its class
# (section 3.2 of the paper). In each iteration the prior generates the ten images from (Z, c) in
# T = 10 steps. A freshly drawn ConvNet then says how its weights should change to classify a batch
# of real images, and how to classify the synthetic ones; the distance between the two, class by
# class ({term}`gradient matching`, DC), is differentiated back through all T steps to Z and c.

# %%
changes = {"iterations": iterations} if iterations is not None else {}
changes["seed"] = seed
cfg = presets.preset(preset, algorithm="DC", space="ld3m", **changes)
seen = {}


def watch(progress):
    if progress.iteration in (0, cfg.iterations // 2):
        with torch.no_grad():
            seen[progress.iteration] = progress.space.images().detach().cpu()


distilled = distil(cfg, data=data, prior=prior, callback=watch)
print("images", tuple(distilled.images().shape))
print({k: tuple(v.shape) for k, v in distilled.state.items()})
assert all(h["grad_Z"] > 0 and h["grad_c"] > 0 for h in distilled.history)

# %%
before = random_real(cfg, data=data)
middle = seen.get(cfg.iterations // 2, before.images())
_ = viz.image_grid(
    torch.cat([before.images(), middle, distilled.images()]),
    row_labels=["before", "half-way", "after"],
    titles=list(data.classes),
)

# %% [markdown]
# The first row are the real images the set started from. The digits stay legible, but they are no
# longer anybody's handwriting: each now pulls a network the way all the digits of its class do.

# %%
losses = [h["loss"] for h in distilled.history]
_ = viz.curve(losses, "distance of gradients")

# %% [markdown]
# ## Judge it
#
# The protocol of section 4.1: train each network from scratch on the ten images, test it on real
# ones, repeat. Only the ConvNet took part in the distillation; the others are **unseen**. Two
# baselines get the same treatment: the real images of the first row above, and ten images whose
# pixels were learned directly, with the same loss and iterations.

# %%
same = presets.preset(preset, algorithm="DC", space="pixel", **changes)
pixels = distil(same, data=data)
protocol = presets.eval_preset(preset, repeats=repeats)
sets = {"random real": before, "pixels": pixels, "LD3M": distilled}
results = {name: evaluate(s, data, config=protocol) for name, s in sets.items()}
print(*results["LD3M"].accuracies, "tested on", len(data.test), "images")

# %% tags=["nbval-ignore-output"]
import pandas as pd

rows = {
    name: {a: 100 * r.mean(a) for a in r.accuracies} | {"unseen": 100 * r.mean()}
    for name, r in results.items()
}
pd.DataFrame(rows).T.round(1)

# %% tags=["nbval-ignore-output"]
_ = viz.accuracy_bars(results, chance=0.1)

# %% [markdown]
# ```{admonition} How to read it
# :class: ours
# This is one distillation at a small size, with few repeats: it shows that the machine works. The
# measured claim, with five repeats, confidence intervals, three algorithms and the autoencoder as a
# third baseline, is on {doc}`../book/experiments/digits_claim`.
# ```
#
# ## Keep it
#
# A saved set says all: its codes, its exact pixels, PNG files by class, the recipe. Loading needs
# no flags, and the codes decode to the very same images, because the forward noise is part of the
# set.

# %%
distilled.save(Path(out) / "set")
again = SyntheticSet.load(Path(out) / "set")
assert torch.equal(again.images(), distilled.images())
assert torch.allclose(again.regenerate(prior), distilled.images(), atol=1e-5)
write_json(
    Path(out) / "summary.json",
    {
        "preset": preset,
        "iterations": cfg.iterations,
        "repeats": repeats,
        "test images": len(data.test),
        "rows": [
            {"trained on": n, **{k: round(v, 1) for k, v in row.items()}} for n, row in rows.items()
        ],
    },
)
print(sorted(p.name for p in (Path(out) / "set").iterdir()))

# %% [markdown]
# ## Exercises
#
# 1. Set `iterations = 0`. Which row of the table does the distilled set equal, and why not exactly?
# 2. Distil with `algorithm="DM"`, then `"MTT"`. Which one moves the images furthest from the real
#    ones?
# 3. Set `sampler=SamplerConfig(guidance_scale=1.0)`. What does guidance do to the strokes, and to
#    the seconds?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. That of the random real images, up to what the autoencoder and the last steps of the chain
#    change: with zero iterations, LD3M's images are the real ones encoded, noised, denoised and
#    decoded.
# 2. Compare `(distilled.images() - before.images()).square().mean()`; the answer depends on the
#    learning rates, which is the point: distances between sets don't measure how well networks
#    train on them.
# 3. Without guidance the noise predictor runs on half the batch. `viz.image_grid` shows the
#    strokes.
# ```

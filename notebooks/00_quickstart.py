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
# How much better than ten real images can ten synthetic ones teach? Make them, and see.
#
# **You will** distil 1,000 real images of handwritten digits into ten synthetic ones, one for each
# class, with LD3M; look at them; and train networks that took no part in the distillation on
# nothing but these ten images.
#
# **You will learn** what Z, c and the forward noise are, how a distillation loss moves them through
# a frozen diffusion model, and how to judge the result against two baselines under one protocol.
#
# **You need** two CPU cores, 1 GB of memory and four minutes (preset `cpu`; half a minute with
# `smoke`, whose images are hardly learned). No Internet connection, no GPU: the data come with
# scikit-learn, the prior with `ld3m_min`. Each figure has a question before it. Answer it before
# you look.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "cpu")  # smoke or cpu
iterations = None  # of the distillation; None: the preset's
repeats = 2  # trainings per network; the preset has 5
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/quickstart")
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
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE
from ld3m_min.io.files import write_json
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil, random_real
from ld3m_min.sampler import SamplerConfig, generate
from ld3m_min.synthetic import SyntheticSet

viz.use_style()


def show(rows, row_labels, titles=None):
    """Rows of ten images, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 60})
    return viz.image_grid(torch.cat(rows), 10, titles, row_labels, scale=0.44)


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
# channels: one number for sixteen.
#
# ```{admonition} Make a prediction
# Encode ten digits and decode them again. What is lost?
# ```

# %%
prior = LatentDiffusionPrior.from_pretrained("digits")
images = data.test.float()[:10]
Z = prior.encode(images)
c = prior.class_conditioning(data.test.labels[:10])
decoded = prior.decode(Z)
print("image", tuple(images.shape), "Z", tuple(Z.shape), "c", tuple(c.shape))

# %% mystnb={"image": {"alt": "Two rows of ten digits, real and decoded. The two rows look alike."}}
fig = show([images, decoded], ["real", "decoded"])
# %% [markdown]
# *Ten test images, and what the decoder makes of their latents.*
#
# ```{admonition} Answer
# :class: dropdown
# Hardly anything that one could see. So what is learned below is learned in the latents.
# ```

# %% tags=["hide-cell"]
assert (decoded - images).square().mean() < 1e-3, "too much is lost"

# %% [markdown]
# ## Distil
#
# Each synthetic image starts from a real one: Z is its latent, c the embedding of its class
# (section 3.2 of the paper). Noise that is drawn once, the **forward noise**, is mixed into Z. Then
# each iteration has four steps:
#
# 1. The prior removes the noise in T = 10 steps, and c tells each of them what to draw. In each
#    but the last, some of Z is mixed into what the prior guesses (the {term}`residual`, as the
#    authors' public code has it; the paper's own formula comes in part III).
# 2. The decoder turns the result into ten images.
# 3. We draw a new ConvNet, and compute the gradient of its loss on a batch of real images and on
#    our ten. Their distance, class by class, is what we want small ({term}`gradient matching`, DC).
# 4. The distance is differentiated back through all T steps to Z and c, which move a little.

# %%
changes = {"iterations": iterations} if iterations is not None else {}
changes["seed"] = seed
cfg = presets.preset(preset, algorithm="DC", space="ld3m", **changes)
seen = {}
looks = {1, 2, 4, 8, cfg.iterations // 2, cfg.iterations}


def watch(progress):
    if progress.iteration + 1 in looks:
        with torch.no_grad():
            current = progress.space.images().detach().cpu()
        seen[progress.iteration + 1] = current


distilled = distil(cfg, data=data, prior=prior, callback=watch)
print("images", tuple(distilled.images().shape))
print({k: tuple(v.shape) for k, v in distilled.state.items()})

# %% tags=["hide-cell"]
assert all(h["grad_Z"] > 0 and h["grad_c"] > 0 for h in distilled.history)

# %% [markdown]
# ```{admonition} Make a prediction
# What do ten images look like that should stand for a thousand: like the nicest digits, like
# averages, or like noise?
# ```

# %% mystnb={"image": {"alt": "Three rows of ten digits: before, half-way, after. The upper row are ten real digits. Further down they are the same classes in another hand, with fuller strokes, and can still be read."}}
before = random_real(cfg, data=data)
middle = seen.get(cfg.iterations // 2, before.images())
fig = show(
    [before.images(), middle, distilled.images()],
    ["before", "half-way", "after"],
    list(data.classes),
)
# %% [markdown]
# *The ten images before the first iteration, half-way, and in the end. The first row are the real
# images that the set started from.*
#
# ```{admonition} Answer
# :class: dropdown
# Like digits, but no longer anybody's handwriting: the strokes are fuller and more regular.
# ```
#
# ```{admonition} Make a prediction
# How does the loss fall: steadily, or in a noisy line? (A new ConvNet is drawn in each iteration.)
# ```

# %% mystnb={"image": {"alt": "The distance of gradients over the iterations. It falls quickly at first, and then goes on as a noisy, nearly level line."}}
set_matplotlib_formats("png")
fig, axis = plt.subplots(layout="constrained")
axis.plot([h["loss"] for h in distilled.history], color=BLUE)
axis.set(xlabel="iteration", ylabel="distance of gradients")
_ = axis.set_title("The loss of the distillation")
# %% [markdown]
# *The loss of each iteration, summed over the ten classes.*
#
# ```{admonition} Answer
# :class: dropdown
# Most is won in the first iterations. The noise afterwards is that of the networks that are drawn;
# it doesn't say that nothing is learned any more.
# ```
#
# **Move it yourself.** Set `sliders = True` in the parameters, and the next cell has a slider for
# the iteration. From which one on do you no longer see the digits change?


# %% mystnb={"image": {"alt": "Two rows of ten digits: the real ones that the set started from, and the set after the first iteration. The two rows look alike."}}
def grown(after):
    """The set after some iterations, below what it started from."""
    show([before.images(), seen[after]], ["before", f"after {after}"])
    plt.show()


viz.with_sliders(grown, sliders, after=tuple(sorted(seen)))
# %% [markdown]
# *What the set started from, and the set after the first iteration.*
#
# ## Evaluate it
#
# The protocol of section 4.1: train each network from scratch on the ten images, test it on real
# ones, repeat. Only the ConvNet took part in the distillation; the others are **unseen**. Two
# baselines get the same treatment: the real images of the first row above, and ten images whose
# pixels were learned directly, with the same loss and iterations.
#
# ```{admonition} Make a prediction
# Guessing is right once in ten. How many of 500 unseen digits, in per cent, does a network read
# that was trained on ten? On ten real ones, on ten pixel images, on LD3M's?
# ```

# %%
same = presets.preset(preset, algorithm="DC", space="pixel", **changes)
pixels = distil(same, data=data)
protocol = presets.eval_preset(preset, repeats=repeats)
sets = {"random real": before, "pixels": pixels, "LD3M": distilled}
results = {n: evaluate(s, data, config=protocol) for n, s in sets.items()}
networks = list(results["LD3M"].accuracies)
print(*networks, "tested on", len(data.test), "images")

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Bars of the accuracy of five networks, three for each: trained on random real images, on learned pixels, and on LD3M's images. All are far above the dotted line of chance at ten per cent. The random real images are the lowest everywhere; pixels and LD3M lie close together, except for AlexNet, where LD3M is ahead."}}
set_matplotlib_formats("png")
fig = viz.accuracy_bars(results, chance=0.1)
# %% [markdown]
# *Accuracy on real test images. Each dot is one training; the dotted line is chance.*

# %% tags=["nbval-ignore-output"]
rows = {}
for name, r in results.items():
    rows[name] = {a: 100 * r.mean(a) for a in networks}
    rows[name]["unseen"] = 100 * r.mean()
pd.DataFrame(rows).round(1)

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# On ten real ones some six in ten, on learned pixels and on LD3M's about eight in ten. So learning
# helps a lot. That the diffusion model helps beyond pixels, this run doesn't show: where the two
# differ, it is one network that does.
# ```
#
# ```{admonition} How to read it
# :class: ours
# This is one distillation at a small size, with few repeats: it shows that the machine works. The
# measured claim, with several distillations of each system, intervals, and the autoencoder as a
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
print(*sorted(p.name for p in (Path(out) / "set").iterdir()))

# %% tags=["hide-cell"]
assert torch.equal(again.images(), distilled.images())
same_again = again.regenerate(prior)
assert torch.allclose(same_again, distilled.images(), atol=1e-5)
summary = {
    "preset": preset,
    "iterations": cfg.iterations,
    "repeats": repeats,
    "test images": len(data.test),
    "rows": [
        {"trained on": n, **{k: round(v, 1) for k, v in row.items()}}
        for n, row in rows.items()
    ],
}
write_json(Path(out) / "summary.json", summary)

# %% [markdown]
# ## Exercises
#
# 1. Set `iterations = 0`. Which row of the table does the distilled set equal, and why not exactly?
# 2. Distil with `algorithm="DM"`, another argument of `presets.preset`. Does it move the images
#    further from the real ones than DC does?
#    Does that say which set is better?
# 3. Generate the distilled codes again, with
#    `generate(prior, Z, c, noise, SamplerConfig(guidance_scale=s))` for s = 1 and s = 3: s says how
#    far the class is exaggerated. What does that do to the strokes, and to the seconds?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# That of the random real images, nearly: with zero iterations, LD3M's images are the real ones
# encoded, noised, denoised and decoded. Noise alone would wipe the digits out; the residual, which
# mixes Z back in, keeps them. The folded cell shows what is lost, to the eye and to the networks.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"] mystnb={"image": {"alt": "Two rows of ten digits, the real ones and LD3M's with zero iterations. The second row shows the same digits, a little smoother."}}
none = presets.preset(preset, space="ld3m", seed=seed, iterations=0)
untouched = distil(none, data=data, prior=prior, progress=False)
read = evaluate(untouched, data, config=protocol).mean()
at_start = results["random real"].mean()
print(f"real {100 * at_start:.1f} %, LD3M, 0: {100 * read:.1f} %")
fig = show([before.images(), untouched.images()], ["real", "LD3M, 0"])
# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# In this short run it moves them a little further: the folded cell has the mean squared distances
# after twelve iterations each. But they depend on the learning rates, which is the point: distances
# between sets don't measure how well networks train on them.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"]
moved = {}
for algorithm in ("DC", "DM"):
    short = presets.preset(
        "smoke",
        algorithm=algorithm,
        space="ld3m",
        seed=seed,
        iterations=12,
    )
    made = distil(short, data=data, prior=prior, progress=False)
    change = made.images() - before.images()
    moved[algorithm] = round(change.square().mean().item(), 4)
print("moved:", moved)

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# Guidance makes the strokes whiter and fuller. Without it (scale 1) the noise predictor runs on
# half the batch, so it takes clearly less time; the labels have the seconds.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"] mystnb={"image": {"alt": "Two rows of ten digits, generated with guidance 1 and 3 from the same codes. With 3 the strokes are whiter; the labels give the seconds."}}
noise = distilled.state["noise"]
guided, labels = [], []
with torch.no_grad():
    for scale in (1.0, 3.0):
        began = time.perf_counter()
        sampler = SamplerConfig(guidance_scale=scale)
        codes = (distilled.state[k] for k in ("Z", "c"))
        guided.append(generate(prior, *codes, noise, sampler))
        seconds = time.perf_counter() - began
        labels.append(f"scale {scale:g},\n{seconds:.1f} s")
fig = show(guided, labels)
# %% [markdown]
# **To take away.** A distilled set is a few codes and the noise that belongs to them; the frozen
# prior turns them into images. A loss that compares networks moves the codes through all steps of
# the sampler. Ten images that were made this way train networks far better than ten real ones.
#
# **Next:** {doc}`../book/background/21_dataset_distillation` derives the three losses that can move
# the codes. {doc}`../book/experiments/digits_claim` has what this page only shows, measured, and
# {doc}`../book/start/how_to_run` the longer runs.

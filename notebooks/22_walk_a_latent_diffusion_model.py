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
# **You will** take the shipped {term}`prior` apart: encode and decode digits, drown them in noise,
# let the {term}`noise predictor` guess them back, walk from pure noise to a digit, and turn
# {term}`classifier-free guidance` up.
#
# **You will learn** the two directions of a diffusion model as LD3M uses them (section 2.2 of the
# paper), and which of its inputs decides what about the image.
#
# **You need** one CPU core and half a minute. No network: the prior comes with `ld3m_min`. The
# derivations are in {doc}`../book/background/22_diffusion_models`.

# %% tags=["parameters"]
import os

# how many digits the guidance is judged on: smoke, or more
preset = os.environ.get("LD3M_PRESET", "cpu")
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/diffusion")  # where the sampled digits go

# %%
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.io.seeds import seeded
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate, generate_latents, timesteps

set_matplotlib_formats("jpeg", pil_kwargs={"quality": 65})  # many pictures, small files
torch.set_grad_enabled(False)  # until the last section nothing is learned
data = load_data("digits")
prior = LatentDiffusionPrior.from_pretrained("digits")
print(
    "trained with",
    prior.train_steps,
    "steps on",
    len(data.train),
    "images of",
    len(prior.classes),
    "classes",
)

# %% [markdown]
# ## Latent space
#
# An {term}`autoencoder` makes images small before anything else happens: the {term}`encoder` turns
# 3 × 32 × 32 numbers into 3 × 8 × 8, the {term}`decoder` turns them back.

# %%
test, test_labels = data.test.float(), data.test.labels
# one test image of each class
some = torch.stack([(test_labels == k).nonzero()[0, 0] for k in range(10)])
images, labels = test[some], test_labels[some]
Z = prior.encode(images)
error = (prior.decode(Z) - images).square().mean()
print(tuple(images.shape), "->", tuple(Z.shape), "| smaller by", images[0].numel() / Z[0].numel())
print("lossy, but by little:", 0 < error.item() < 1e-3)

# %%
everything = prior.encode(test)
low, high = everything.quantile(0.01), everything.quantile(0.99)
small = ((Z - low) / (high - low)).clamp(0, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
print("scaled to a variance near 1:", abs(everything.std().item() - 1) < 0.1)


def show(rows, row_labels, titles=None, columns=5):
    """The first images of each row."""
    return viz.image_grid(
        torch.cat([row[:columns] for row in rows]), columns, titles, row_labels, scale=0.7
    )


fig = show([images, small, prior.decode(Z)], ["image", "latent", "decoded"])
# %% [markdown]
# The middle row shows the three channels of the latents as red, green and blue. They still look
# like digits: each latent pixel stands for a patch of 4 by 4. The scale matters, because the noise
# that comes next has variance 1.
#
# ## Forward: add noise
#
# The {term}`noise schedule` holds $\gamma_t$, in code `alpha_bar[t]`: the share of the variance
# that is still image after $t$ steps. One step keeps the share $\alpha_t = \gamma_t / \gamma_{t-1}$
# and fills up with noise. Following mean and variance through 900 single steps gives the same as
# one jump with $\gamma_t$.

# %%
alpha_bar = prior.alpha_bar  # (1000,), float64
alpha = alpha_bar / torch.cat([torch.ones(1), alpha_bar[:-1]])
factor, variance = 1.0, 0.0
for t in range(902):
    factor, variance = alpha[t].sqrt() * factor, alpha[t] * variance + (1 - alpha[t])
print("factor of the image:", torch.allclose(factor, alpha_bar[901].sqrt()))
print("variance of the noise:", torch.allclose(variance, 1 - alpha_bar[901]))

# %%
visited = [1, *range(101, 1000, 100)]
share = alpha_bar[visited]
columns = {
    "alpha_bar": share,
    "factor of the image": share.sqrt(),
    "factor of the noise": (1 - share).sqrt(),
}
table = pd.DataFrame({"t": visited} | {name: values.tolist() for name, values in columns.items()})
assert list(table["t"]) == timesteps(10, prior.train_steps)
assert (alpha_bar.diff() < 0).all() and 0 < alpha_bar[-1] < alpha_bar[0] < 1
table.set_index("t").round(4)

# %% [markdown]
# The ten rows are the steps that a sampler with $T = 10$ visits. At the last of them the image's
# factor is 0.03: almost nothing of $\mathcal{Z}$ is left. What that looks like, decoded:

# %%
noise = torch.randn(Z.shape, generator=seeded(seed, "noise"))


def forward(Z, noise, t):
    return (alpha_bar[t].sqrt() * Z + (1 - alpha_bar[t]).sqrt() * noise).float()


levels = (1, 301, 501, 701, 901)
theirs = prior.scheduler.add_noise(Z, noise, torch.full((10,), 501))
print("as diffusers adds it:", torch.allclose(forward(Z, noise, 501), theirs, atol=1e-5))
fig = show([prior.decode(forward(Z, noise, t)) for t in levels], [f"t = {t}" for t in levels])
# %% [markdown]
# ## One guess
#
# The network $f_\theta(c, z_t, t)$ predicts the noise in $z_t$. Subtracting it gives a guess of the
# clean latent, $\hat z_0 = (z_t - \sqrt{1-\gamma_t}\,f_\theta) / \sqrt{\gamma_t}$. From little
# noise the guess is the image; from more it is a digit of the right class, but a smoother one. At
# $t = 901$ something is wrong with it, which the next cell explains.

# %%
c = prior.class_conditioning(labels)


def guess(z, t, c):
    """f_theta and the clean latent that it implies."""
    e = prior.predict_noise(z, torch.full((len(z),), t), c)
    return e, ((z - (1 - alpha_bar[t]).sqrt() * e) / alpha_bar[t].sqrt()).float()


guesses = {t: guess(forward(Z, noise, t), t, c) for t in levels}
fig = show([prior.decode(z) for _, z in guesses.values()], [f"from t = {t}" for t in levels])
# %%
noise_error = torch.stack([(e - noise).square().mean() for e, _ in guesses.values()])
image_error = torch.stack([(z - Z).square().mean() for _, z in guesses.values()])
print("with t, the noise gets easier to see:", bool((noise_error.diff() < 0).all()))
print("and the image harder:", bool((image_error.diff() > 0).all()))
odds = torch.stack([(1 - alpha_bar[t]) / alpha_bar[t] for t in levels])
print(
    "one error in two units:", torch.allclose(image_error.double(), noise_error * odds, rtol=1e-2)
)

# %% [markdown]
# So the two errors are one, in two units. The factor between them runs from 0.003 to over a
# thousand: at the first step of the walk a tiny error of the network is a large one in the image,
# which is why one guess is not enough.
#
# ## Backward: walk
#
# {term}`DDIM` takes the guess and adds the predicted noise again, but only as much as the next
# visited step has. Ten such steps lead from noise to a latent. By hand:


# %%
def step(z, t, t_next, c):
    e, x0 = guess(z, t, c)
    return (alpha_bar[t_next].sqrt() * x0 + (1 - alpha_bar[t_next]).sqrt() * e).float()


def walk(z, ts, c):
    for t, t_next in zip(ts, [*ts[1:], 0], strict=True):
        z = step(z, t, t_next, c)
    return z


ts = timesteps(10, prior.train_steps)[::-1]
plain = SamplerConfig(steps=10, guidance_scale=1.0, residual=NO_RESIDUAL)
by_hand, package = (
    walk(forward(Z, noise, ts[0]), ts, c),
    generate_latents(prior, Z, c, noise, plain),
)
print("steps", ts)
print("torch.allclose ->", torch.allclose(by_hand, package, atol=1e-4))

# %% [markdown]
# diffusers' own scheduler, fed with the same predictions, agrees. `NO_RESIDUAL` says that these are
# the plain steps: what LD3M adds to them is the subject of section 3.1.

# %%
scheduler = prior.scheduler
scheduler.set_timesteps(10)
z = forward(Z, noise, ts[0])
for t in scheduler.timesteps:
    z = scheduler.step(prior.predict_noise(z, t.expand(10), c), t, z, eta=0.0).prev_sample
print(
    "same steps:",
    scheduler.timesteps.tolist() == ts,
    "| torch.allclose ->",
    torch.allclose(z, package, atol=1e-3),
)

# %% [markdown]
# A callback sees each step of `generate`. Here the digits start from pure noise
# ($\mathcal{Z} = 0$), with guidance 3 as in the paper; each column shows the guess $\hat z_0$ of
# one step, decoded, and the last one the result.

# %%
seen, wanted = [], torch.tensor([0, 4, 8])
config = SamplerConfig(steps=10, guidance_scale=3.0, residual=NO_RESIDUAL)
start = torch.randn(3, *Z.shape[1:], generator=seeded(seed, "walk"))
code = prior.class_conditioning(wanted)
final = generate_latents(prior, torch.zeros_like(start), code, start, config, callback=seen.append)
frames = torch.stack([s.predicted_x0 for s in seen] + [final], 1)
print("steps seen:", len(seen), "| frames", tuple(frames.shape))
fig = show(
    prior.decode(frames.flatten(0, 1)).unflatten(0, (3, 11)),
    None,
    [f"{s.t}" for s in seen] + ["result"],
    columns=11,
)
# %%
moves = torch.stack([(b.predicted_x0 - a.predicted_x0).square().mean() for a, b in pairwise(seen)])
last, a = seen[-1], alpha_bar[0]
print("the guess settles:", bool(moves[-1] < 0.1 * moves[0]))
print(
    "the last state is the last guess, with noise of step 0:",
    torch.allclose(
        final,
        (a.sqrt() * last.predicted_x0 + (1 - a).sqrt() * last.noise_prediction).float(),
        atol=1e-5,
    ),
)

# %% [markdown]
# ## Guidance
#
# The prior was trained with the class, and now and then without, under a {term}`null class`.
# Guidance goes further in the direction in which the class changes the prediction,
# $e_u + s\,(e_c - e_u)$: 0 is no class, 1 the class as trained.

# %%
one_step = []
null = prior.null_conditioning(3)
generate_latents(prior, torch.zeros_like(start), code, start, config, callback=one_step.append)
first = one_step[0]
e_u, e_c = (guess(first.z, first.t, x)[0] for x in (null, code))
print(
    "at t =",
    first.t,
    "| torch.allclose ->",
    torch.allclose(first.noise_prediction, e_u + 3 * (e_c - e_u), atol=1e-5),
)

# %%
scales = (0.0, 1.0, 3.0, 6.0, 12.0)
everyone = prior.class_conditioning(torch.arange(10))


def sample(c, noise, scale, **changes):
    config = SamplerConfig(steps=10, guidance_scale=scale, residual=NO_RESIDUAL, **changes)
    return generate(prior, torch.zeros_like(noise), c, noise, config)


sweep = [sample(everyone, noise, s) for s in scales]
figure = show(sweep, [f"s = {s:g}" for s in scales], list(data.classes))
Path(out).mkdir(parents=True, exist_ok=True)
figure.savefig(Path(out) / "guidance.png")
# %% [markdown]
# Each column keeps its noise. In the first row the class has no say, further down it has more and
# more: the strokes grow surer, then too strong. A judge that has seen the training images, their
# nearest neighbour, puts a number on the first part.

# %%
each = 3 if preset == "smoke" else 6
asked = torch.arange(10).repeat_interleave(each)
many = torch.randn(len(asked), *Z.shape[1:], generator=seeded(seed, "judge"))
known = data.train.float().flatten(1)


def read(made):
    """The class of the nearest training image, (B,)."""
    return data.train.labels[torch.cdist(made.flatten(1), known).argmin(1)]


made = {s: read(sample(prior.class_conditioning(asked), many, s)) for s in (0.0, 1.0, 3.0)}
shares = {s: (classes == asked).float().mean().item() for s, classes in made.items()}
print("the judge reads real digits:", (read(test) == test_labels).float().mean().item() > 0.95)
print("no class, near chance:", shares[0.0] < 0.25, "| the class as trained:", shares[1.0] > 0.85)
print("guided, no worse:", shares[3.0] >= shares[1.0])

# %%
other = sample(everyone.flip(0), noise, 0.0)
print("s = 0 does not look at c:", torch.allclose(other, sample(everyone, noise, 0.0), atol=1e-5))
null = sample(prior.null_conditioning(10), noise, 1.0)
print("and is the null class:", torch.allclose(null, other, atol=1e-4))

# %% [markdown]
# ## Noise and class, each alone
#
# DDIM has no noise of its own, so an image is a function of its initial noise and $c$. The
# {term}`ancestral sampler` ($\eta = 1$, equations (1) to (5)) adds fresh noise at each step; here
# it is derived from the initial noise, so that it too repeats itself.

# %%
one_noise, three = noise[:1].expand(10, -1, -1, -1), prior.class_conditioning(torch.full((10,), 3))
rows = [
    sample(everyone, one_noise, 3.0),
    sample(three, noise, 3.0),
    sample(three, noise, 3.0, eta=1.0),
]
again = [sample(three, noise, 3.0, eta=eta) for eta in (0.0, 1.0)]
print("repeatable:", [torch.allclose(a, b) for a, b in zip(rows[1:], again, strict=True)])
print("read as a 3:", [bool((read(r) == 3).float().mean() >= 0.8) for r in rows[1:]])
fig = show(
    rows, ["one noise,\nmany classes", "many noises,\none class", "the same,\nancestral"], columns=8
)
# %% [markdown]
# $c$ is a vector of 32 numbers, and nothing confines it to the ten that the prior was trained with.
# Between two classes lie images of neither, and images that are one for a while and then the other:

# %%
ends = {"4 to 9": (4, 9), "1 to 7": (1, 7), "3 to 8": (3, 8), "5 to null": (5, 10)}
table = prior.class_embedding.weight  # (11, 32), the last row is the null class
u = torch.linspace(0, 1, 8)[:, None]
rows = [
    sample(((1 - u) * table[a] + u * table[b])[:, None], one_noise[:8], 3.0)
    for a, b in ends.values()
]
print(
    "ends are the classes:",
    torch.allclose(rows[1][[0, -1]], sample(everyone[[1, 7]], one_noise[:2], 3.0), atol=1e-4),
)
print(
    "codes",
    tuple(table.shape),
    "| a path:",
    all((r[0] - r[7]).norm() > (r[0] - r[2]).norm() for r in rows),
)
fig = show(rows, list(ends), columns=8)
# %% [markdown]
# ## Who decides, the latent or the class?
#
# LD3M starts the walk from a noised latent of a real image, and learns both. So start from a digit
# $k$, but ask for the class $k + 1$. With little noise the image stays what it was; from $t = 901$,
# where the sampler with $T = 10$ starts, the class alone decides and $\mathcal{Z}$ is forgotten.

# %%
wrong = everyone.roll(-1, 0)  # the code of class k + 1
entries = (101, 301, 501, 701, 901)
ends = [prior.decode(walk(forward(Z, noise, t), [x for x in ts if x <= t], wrong)) for t in entries]
distance = torch.stack([(x - images).square().mean() for x in ends])
print("further from the start, the earlier:", bool((distance.diff() > 0).all()))
print("from 101 it stays k:", (read(ends[0]) == labels).sum().item() >= 9)
print("from 901 it is k + 1:", (read(ends[-1]) == (labels + 1) % 10).sum().item() >= 9)
fig = show([images, *ends], ["start", *(f"from t = {t}" for t in entries)])
# %% [markdown]
# ```{admonition} What that means for LD3M
# :class: ours
# Through the plain walk, hardly anything of $\mathcal{Z}$ reaches the image: learning it would be
# learning noise. The paper's answer is the {term}`residual`, which brings the initial state back in
# at every step. Which initial state, the noised or the clean one, is then what matters.
# ```
#
# ## Through the walk, backwards
#
# Distillation needs the gradient of the image with respect to both codes. `generate` is an ordinary
# differentiable function, so autograd has it.

# %%
with torch.enable_grad():
    codes = Z[:2].clone().requires_grad_(), everyone[:2].clone().requires_grad_()
    picture = generate(prior, *codes, noise[:2], config)
    to_Z, to_c = torch.autograd.grad(picture.square().sum(), codes)
print("d image / dZ", tuple(to_Z.shape), "d image / dc", tuple(to_c.shape))
print("both arrive:", all(bool(g.isfinite().all() and g.norm() > 0) for g in (to_Z, to_c)))
assert not any(p.requires_grad for m in prior.modules for p in m.parameters()), (
    "the prior must stay frozen"
)

# %% [markdown]
# ## Exercises
#
# 1. Take `steps=2`, then 50, in the walk. What changes in the result, what in the seconds?
# 2. Guide with a negative scale by hand: $e_u - (e_c - e_u)$. What is drawn?
# 3. Why does the noise error fall with $t$ although the picture gets harder to see?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. With 2 steps the strokes are clumsy and some digits come apart, since each guess has to reach
#    far; with 50 they are nearly those of 10, at five times the cost. {term}`DDIM` makes few steps
#    possible because each ends where the exact ones would if the guess were right.
# 2. Anything but the class: the walk flees from it. `SamplerConfig` refuses such scales, so change
#    `guess` and `walk`.
# 3. Nearly all of $z_t$ is noise then, and $f_\theta = z_t$ would be almost right. What is left to
#    know, the image, has the weight $\sqrt{\gamma_t}$ in $z_t$.
# ```
#
# **Next:** {doc}`23_distil_through_a_generator` distils with another generator;
# {doc}`31_derive_the_ld3m_step` puts the residual into the walk.

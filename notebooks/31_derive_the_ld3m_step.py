# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-ld3m-step)=
# # Derive the LD3M step
#
# What does one step of LD3M compute, and what does its residual do to images and gradients?
#
# **You will** compute equations (1) to (6) of section 3.1 by hand, with a noise predictor so simple
# that a calculator would do, find the package's loop equal to your own, and then measure on the
# shipped prior what the residual does to images and gradients.
#
# **You will learn** where each coefficient of a sampler step comes from, how the paper's step and
# the public code's differ, and which of the two gives $\Z$ the larger gradient.
#
# **You need** one CPU core, 1 GB of memory and half a minute (presets `smoke` and `cpu`). No GPU,
# no Internet. The derivations are on {doc}`../book/method/31_sampling`.

# %% tags=["parameters"]
import os

# smoke: one image a class; else three, for steadier gradients
preset = os.environ.get("LD3M_PRESET", "smoke")
seed = 0  # of every random draw
# where the figure of the gradients goes
out = os.environ.get("LD3M_OUT", "../runs/derive_the_ld3m_step")
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
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import sampler
from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE, PURPLE
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import (
    NO_RESIDUAL,
    PAPER_RESIDUAL,
    PUBLIC_RESIDUAL,
    Residual,
)
from ld3m_min.sampler import SamplerConfig, generate, generate_latents
from ld3m_min.spaces import draw_initial_images
from ld3m_min.spaces.ld3m import forward_noise

viz.use_style()
set_matplotlib_formats("png")
near = torch.testing.assert_close

# %% [markdown]
# ## The coefficients
#
# The prior was trained on a thousand steps of noise; the sampler visits $T = 10$ of them.
# Everything in equations (3) to (6) follows from one number for each visited step, $\gamma_t$: the
# share of the signal's variance that is left.

# %%
T = 10
alpha_bar = alphas_cumprod(ldm_scheduler()).tolist()  # of 1000 steps
visited = sampler.timesteps(T, 1000)
gamma = [alpha_bar[0], *(alpha_bar[t] for t in visited)]  # t = 0 ... T
alpha = [None, *(gamma[t] / gamma[t - 1] for t in range(1, T + 1))]
sigma = [None]
for t in range(1, T + 1):
    left = (1 - gamma[t - 1]) / (1 - gamma[t])
    sigma.append(math.sqrt(left * (1 - alpha[t])))
rows = {
    t: {
        "told to f": visited[t - 1],
        "gamma": gamma[t],
        "alpha": alpha[t],
        "sigma": sigma[t],
        "sigma^2": sigma[t] ** 2,
        "weight of z_T": t / T,
    }
    for t in range(T, 0, -1)
}
pd.DataFrame(rows).T.rename_axis("t").astype({"told to f": int}).round(4)

# %% [markdown]
# The first line is the one to look at. The sampler starts from
# $z_T = \sqrt{\gamma_T}\,\Z + \sqrt{1-\gamma_T}\,\varepsilon$, and at $T = 10$ the factor of $\Z$
# is

# %%
print(
    f"sqrt(gamma_T) = {math.sqrt(gamma[T]):.4f}; "
    f"share of the noise in the variance of z_T: {1 - gamma[T]:.4f}"
)
assert math.sqrt(gamma[T]) < 0.03

# %% [markdown]
# So $z_T$ is noise with three per cent of $\Z$ in it. Remember that for the gradients.
#
# ## A toy prior
#
# A noise predictor that is linear, $f(c, z, \gamma) = p z + q c$, makes every equation arithmetic.
# Its "codebook" rounds to multiples of a half; the gradient passes as if it did not.


# %%
class Toy:
    conditional, latent_channels, train_steps = True, 1, 1000
    alpha_bar = alphas_cumprod(ldm_scheduler())
    p, q = 0.6, 0.2

    def predict_noise(self, z, t, c):
        return self.p * z + self.q * c.view(-1, 1, 1, 1)

    def quantize(self, z):
        return z + ((2 * z).round() / 2 - z).detach()


toy = Toy()
g = torch.Generator().manual_seed(seed)
kind = {"generator": g, "dtype": torch.float64}
Z, noise = (torch.randn(3, 1, 2, 2, **kind) for _ in range(2))
c = torch.randn(3, 1, 1, **kind)
toy_codes = Z, c, noise

# %% [markdown]
# ## Equation (4) is the mean of DDIM at eta = 1
#
# The paper takes the mean from DDPM: subtract a share of the predicted noise, divide by
# $\sqrt{\alpha_t}$. The package goes another way: first the clean latent that the prediction
# implies, $\hat z_0$, then noise it again, but less. With fresh noise of standard deviation
# $\sigma_t$, both should be the same.


# %%
def mu_ddpm(z, f, t):  # equation (4)
    share = (1 - alpha[t]) / math.sqrt(1 - gamma[t])
    return (z - share * f) / math.sqrt(alpha[t])


def mu_ddim(z, f, t):  # what ld3m_min.sampler computes, for eta = 1
    z0 = (z - math.sqrt(1 - gamma[t]) * f) / math.sqrt(gamma[t])
    rest = math.sqrt(1 - gamma[t - 1] - sigma[t] ** 2)
    return math.sqrt(gamma[t - 1]) * z0 + rest * f


f = toy.predict_noise(Z, None, c)
ts = range(T, 0, -1)
ddpm = torch.stack([mu_ddpm(Z, f, t) for t in ts]).flatten(1)
ddim = torch.stack([mu_ddim(Z, f, t) for t in ts]).flatten(1)
print("steps and numbers:", tuple(ddpm.shape))

# %% mystnb={"image": {"alt": "Two plots, one above the other, over t from 10 to 1. Above, a thick line for equation (4) and a dashed one for the package lie on top of each other. Below, their largest difference at each step: less than ten to the minus fifteen."}}
fig, (axis, below) = plt.subplots(
    2,
    1,
    figsize=(4.6, 3.6),
    sharex=True,
    height_ratios=(2, 1),
)
axis.plot(ts, ddpm[:, 0], color=BLUE, lw=5, alpha=0.5, label="equation (4)")
axis.plot(ts, ddim[:, 0], "--", color=ORANGE, lw=2, label="by $\\hat z_0$")
axis.set_ylabel("mean, first number")
axis.set_title("One mean, computed in two ways", fontsize=11)
axis.legend(frameon=False, fontsize=9)
below.bar(ts, 1e15 * (ddpm - ddim).abs().amax(1), color=GREY)
below.set(xlabel="step t", ylabel="apart, $10^{-15}$", xlim=(T + 0.6, 0.4))
for one in (axis, below):
    one.grid(alpha=0.3)
fig.tight_layout()
# %% [markdown]
# *Above, the first of the toy's twelve numbers; below, the largest difference of all twelve. It is
# the rounding of float64.*

# %% tags=["hide-cell"]
near(ddpm, ddim, rtol=1e-9, atol=1e-8)
assert (ddpm - ddim).abs().max() < 1e-13

# %% [markdown]
# ## Equations (5) and (6) by hand
#
# Equation (5) adds fresh noise to the mean; equation (6) first mixes the initial state into it,
# with weight $t/T$.


# %%
def paper(Z, c, noise, residual, f=toy.predict_noise):
    fresh = sampler.ancestral_noise(noise, T)  # one for each step
    z_T = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
    states = [z_T]
    for t in range(T, 0, -1):
        mean = mu_ddpm(states[-1], f(states[-1], t, c), t)
        if residual:
            mean = (1 - t / T) * mean + t / T * z_T  # equation (6)
        # equation (5): sigma, not its square, see below
        states.append(mean + sigma[t] * fresh[t - 1])
    return torch.stack(states)


def package(residual, eta, prior=toy):
    config = SamplerConfig(
        steps=T,
        guidance_scale=1,
        eta=eta,
        residual=residual,
    )
    steps = []
    z0 = generate_latents(prior, *toy_codes, config, callback=steps.append)
    states = torch.stack([steps[0].z, *(s.z_next for s in steps)])
    assert torch.equal(states[-1], z0)
    return states


by_hand = {
    "(5)": paper(Z, c, noise, False),
    "(6)": paper(Z, c, noise, True),
}
theirs = {
    "(5)": package(NO_RESIDUAL, eta=1),
    "(6)": package(PAPER_RESIDUAL, eta=1),
}
print("states by hand:", tuple(by_hand["(6)"].shape))

# %% mystnb={"image": {"alt": "Two curves over the states from t = 10 to t = 0, for equations (5) and (6). Both start at one point and then go apart. Circles of the package lie on the curves that were computed by hand."}}
STYLES = {
    "(5)": (GREY, "-"),
    "(6)": (BLUE, "--"),
    "public code": (ORANGE, "-."),
}


def compare(by_hand, theirs, title):
    """One number of the states: lines by hand, circles by the package."""
    fig, axis = plt.subplots(figsize=(4.6, 2.8))
    for name, states in by_hand.items():
        colour, style = STYLES[name]
        t = range(T, -1, -1)
        axis.plot(t, states.flatten(1)[:, 0], style, color=colour, label=name)
        dots = theirs[name].flatten(1)[:, 0]
        axis.plot(t, dots, "o", color=colour, mfc="none")
    axis.set(xlabel="state t", ylabel="first number", xlim=(T + 0.4, -0.4))
    axis.set_title(title, fontsize=11)
    axis.legend(frameon=False, fontsize=9)
    axis.grid(alpha=0.3)
    fig.tight_layout()
    return fig


_ = compare(by_hand, theirs, "Equations (5) and (6)")
# %% [markdown]
# *The walk of one number of the toy's state: lines by hand, circles from the package.*

# %% tags=["hide-cell"]
for name, states in by_hand.items():
    near(states, theirs[name])

# %% [markdown]
# ## The public code's step by hand
#
# It adds no fresh noise ($\eta = 0$), mixes in the **clean** code, quantised, and mixes it into the
# predicted **clean** latent, before the next state is made of it. The weight falls from 1 to 0, not
# to $1/T$.


# %%
def public(Z, c, noise):
    z = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
    states = [z]
    for t in range(T, 0, -1):
        f = toy.predict_noise(z, t, c)
        z0 = (z - math.sqrt(1 - gamma[t]) * f) / math.sqrt(gamma[t])
        w = (t - 1) / (T - 1)
        z0 = (1 - w) * z0 + w * toy.quantize(Z)
        z = math.sqrt(gamma[t - 1]) * z0 + math.sqrt(1 - gamma[t - 1]) * f
        states.append(z)
    return torch.stack(states)


by_hand["public code"] = public(Z, c, noise)
theirs["public code"] = package(PUBLIC_RESIDUAL, eta=0)

# %% mystnb={"image": {"alt": "Three curves over the states from t = 10 to t = 0, for equations (5) and (6) and the public code. All start at one point. The public code's curve is smooth, as no fresh noise is added. Circles of the package lie on the curves that were computed by hand."}}
_ = compare(by_hand, theirs, "The public code's step beside them")
# %% [markdown]
# *As above, with the public code's step. Its curve is smooth, since no fresh noise comes in.*

# %% tags=["hide-cell"]
near(by_hand["public code"], theirs["public code"])

# %% [markdown]
# ## What happens at t = T
#
# There the weight is 1. Equation (6) replaces the mean by $z_T$ as a whole; the public code
# replaces the predicted clean latent. Now make the first prediction of the network absurd: 100 too
# large.
#
# ```{admonition} Make a prediction
# Which of the two results notices?
# ```


# %%
class Absurd(Toy):
    def predict_noise(self, z, t, c):
        first = (t == visited[-1]).view(-1, 1, 1, 1)
        return super().predict_noise(z, t, c) + 100.0 * first


moved = {}
for name, residual, eta in (
    ("equation (6)", PAPER_RESIDUAL, 1),
    ("public code", PUBLIC_RESIDUAL, 0),
):
    usual = package(residual, eta)
    absurd = package(residual, eta, prior=Absurd())
    moved[name] = (absurd[-1] - usual[-1]).abs().max().item()
    print(f"{name}: the result moves by {moved[name]:.1f}")

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# The public code's. There the absurd prediction is still the noise of the next state. With equation
# (6) the first prediction is lost, and the first call of the network is for nothing.
# ```

# %% tags=["hide-cell"]
assert moved["equation (6)"] == 0 < moved["public code"]

# %% [markdown]
# ## Sigma, not sigma squared
#
# Equation (3) draws from a normal distribution of variance $\sigma_t^2$, but equations (5) and (6)
# add $\sigma_t^2\,\varepsilon_t$, whose variance is $\sigma_t^4$. Take latents that are normal with
# variance 1: then the best predictor is $f = \sqrt{1-\gamma_t}\,z$, equation (4) becomes
# $\mu = \sqrt{\alpha_t}\,z$, and the variance of the states obeys
# $v_{t-1} = \alpha_t v_t + (\text{what is added})^2$. It should end at 1.


# %%
def final_variance(steps, power):
    g = [alpha_bar[0], *(alpha_bar[t] for t in sampler.timesteps(steps, 1000))]
    v = 1.0
    for t in range(len(g) - 1, 0, -1):
        s = math.sqrt((1 - g[t - 1]) / (1 - g[t]) * (1 - g[t] / g[t - 1]))
        v = g[t] / g[t - 1] * v + s ** (2 * power)
    return v


powers = {"sigma": 1, "sigma^2": 2}
table = {
    n: {name: final_variance(n, power) for name, power in powers.items()}
    for n in (10, 50, 200, 1000)
}
pd.DataFrame(table).round(4)

# %% tags=["hide-cell"]
assert abs(final_variance(1000, 1) - 1) < 0.02
assert final_variance(1000, 2) < 0.01

# %% [markdown]
# With $\sigma_t$ the variance comes out right as the steps become finer (with few steps, too little
# noise is added, as is known of this choice of $\sigma_t$). With its square it dies out, and the
# more so the more steps there are; what that does to images is measured in [another
# notebook](nb-diff-sigma). We take the square for a slip, and the package adds
# $\sigma_t\,\varepsilon_t$.
#
# ## Other decays
#
# The weight need not fall linearly. The paper leaves other decays to future work; here they are
# values of one field.

# %% mystnb={"image": {"alt": "Two plots of the weight of the initial state over the step t, from 10 to 1. On the left, into the mean as equation (6), the linear weight falls from 1 to a tenth; on the right, into the clean latent as the public code, from 1 to 0. The other decays fall earlier or later."}}
fig, axes = plt.subplots(1, 2, figsize=(4.6, 3.4), sharey=True)
steps = range(T, 0, -1)
titles = {
    "mean": "into the mean,\nas (6)",
    "x0": "into $\\hat z_0$,\nas the code",
}
looks = ("-o", "--s", "-.^", ":D", "-v", "--x", "-.+", ":*")
for axis, into in zip(axes, titles, strict=True):
    for k, decay in enumerate(sampler.DECAYS):
        weighted = Residual(into, "clean", decay)
        weights = [weighted.weight(t - 1, T) for t in steps]
        look = looks[k % len(looks)]
        axis.plot(steps, weights, look, ms=4, lw=1.2, label=decay)
    axis.set(xlabel="step t", xlim=(T + 0.5, 0.5), xticks=(10, 5, 1))
    axis.set_title(titles[into], fontsize=10)
    axis.grid(alpha=0.3)
axes[0].set_ylabel("weight of the initial state")
handles, names = axes[0].get_legend_handles_labels()
style = {"frameon": False, "fontsize": 9, "ncols": 3}
fig.legend(handles, names, loc="lower center", **style)
fig.tight_layout(rect=(0, 0.06 * -(-len(names) // 3), 1, 1))
# %% [markdown]
# *The weight of the initial state, for each decay, at the two places where it can be mixed in.*

# %% [markdown]
# ## On a real prior: images
#
# Ten digits, encoded; the noise is drawn once and is the same in every row. The rows: no residual;
# equations (5) and (6), which add fresh noise at every step; the public code, which adds none; and
# two crossings of (6) and the code, without fresh noise.
#
# ```{admonition} Make a prediction
# Which rows stay near the real digits, and which one looks worst?
# ```

# %%
data = load_data("digits")
prior = LatentDiffusionPrior.from_pretrained("digits")
images, labels = draw_initial_images(data, 1 if preset == "smoke" else 3, seed)
Z, c = prior.encode(images), prior.class_conditioning(labels)
noise = forward_noise(Z.shape, seed)
VARIANTS = {
    "none": SamplerConfig(residual=NO_RESIDUAL),
    "eq. (5)": SamplerConfig(residual=NO_RESIDUAL, eta=1),
    "eq. (6)": SamplerConfig(residual=PAPER_RESIDUAL, eta=1),
    "public": SamplerConfig(residual=PUBLIC_RESIDUAL),
    "clean in mean": SamplerConfig(residual=Residual("mean", "clean")),
    "noised in z0": SamplerConfig(residual=Residual("x0", "noised")),
}
print("Z", tuple(Z.shape), "c", tuple(c.shape), "noise", tuple(noise.shape))

# %%
with torch.no_grad():
    made = {
        name: prior.decode(generate_latents(prior, Z, c, noise, config))
        for name, config in VARIANTS.items()
    }
apart = {n: (x - images).square().mean().item() for n, x in made.items()}
distance = {name: d / apart["none"] for name, d in apart.items()}

# %% mystnb={"image": {"alt": "Seven rows of five digits, with a bar beside each but the first. The real digits; without residual and with equation (5), other digits of the same classes; equation (6), with rough strokes; public code and clean in mean, nearly the real digits, with very short bars; noised in z0, faint and broken digits with the longest bar."}}
shown = [k * len(labels) // 10 for k in (2, 4, 6, 7, 9)]
columns, names = len(shown), ["real", *made]
rows = torch.stack([x[shown].mean(1) for x in (images, *made.values())])
rows = torch.nn.functional.pad(rows, (1, 1, 1, 1), value=1)  # white frames
sheet = rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
fig, (left, right) = plt.subplots(
    1,
    2,
    figsize=(4.6, 3.9),
    sharey=True,
    width_ratios=(columns, 2.2),
)
extent = (0, columns, len(names) - 0.5, -0.5)
left.imshow(sheet.clamp(0, 1), cmap="gray", extent=extent, aspect="auto")
left.set(xticks=[], yticks=range(len(names)))
left.set_yticklabels(names, fontsize=9)
right.barh(range(1, len(names)), distance.values(), color=BLUE, height=0.6)
for k, d in enumerate(distance.values(), 1):
    right.text(d + 0.06, k, f"{d:.2f}", va="center", fontsize=9)
right.set_xlabel("relative to none", fontsize=9)
right.set(xlim=(0, 2.9), xticks=(0, 1, 2))
right.set_title("distance", fontsize=10)
right.tick_params(axis="y", length=0)
right.grid(axis="x", alpha=0.3)
left.set_title("six variants", fontsize=10)
fig.tight_layout()
# %% [markdown]
# *Five of the digits in each row, and the mean squared difference from the real ones, over all ten,
# relative to the row without residual.*
#
# ```{admonition} Answer
# :class: dropdown
# Without the residual the prior writes its own digit of the class $c$, not the one that $\Z$
# encodes. With equation (6) noise is mixed into every state, the last one included, and the strokes
# suffer. With the clean code, wherever it is mixed in, the image stays near the one that $\Z$ came
# from.
# ```

# %% tags=["hide-cell"]
assert max(distance["public"], distance["clean in mean"]) < 0.5

# %% [markdown]
# ## On a real prior: gradients
#
# The reason the paper gives for the residual is the gradient of $\Z$, which has to pass all the
# steps. Take one loss, the distance of ten mean embeddings (distribution matching), and record the
# norm of its gradient at every state. The callback sees each state as it is made; `retain_grad`
# keeps what autograd computes there.
#
# ```{admonition} Make a prediction
# By what factor does each residual enlarge the gradient of $\Z$? Remember the
# $\sqrt{\gamma_T}$ of the first table, and which rows have $\Z$ in them by another way.
# ```

# %%
network = build_network(
    "ConvNet",
    size=32,
    depth=3,
    width=32,
    generator=seeded(seed, "network"),
).requires_grad_(False)
target = []
for k in range(10):
    real = data.train.sample_class(k, 64, seeded(seed, "real", k))
    target.append(network.embed(data.normalise(real)).mean(0))
target = torch.stack(target)


def gradients(config):
    codes, states = [x.clone().requires_grad_() for x in (Z, c)], []

    def keep(step):
        for z in (step.z_next,) if states else (step.z, step.z_next):
            z.retain_grad()
            states.append(z)

    z0 = generate_latents(prior, *codes, noise, config, callback=keep)
    embedded = network.embed(data.normalise(prior.decode(z0)))
    embedded = embedded.unflatten(0, (10, -1)).mean(1)
    (embedded - target).square().sum().backward()
    return {
        "Z": codes[0].grad.norm().item(),
        "c": codes[1].grad.norm().item(),
        "z": [z.grad.norm().item() for z in states],
    }


norms = {name: gradients(config) for name, config in VARIANTS.items()}
print("states with a gradient:", {n: len(x["z"]) for n, x in norms.items()})

# %% mystnb={"image": {"alt": "Two bar charts on logarithmic axes, a row for each variant. On the left, the gradients of Z and c relative to the row without residual: that of Z is more than ten times as large for the two clean ones, about three times for noised in z0, and 1.7 times for (6); that of c is a fifth for the clean ones, and half as large again for (5). On the right, the gradient of Z over that of the state z T: it lies on a dotted line at 0.029 for none, (5), (6) and noised in z0, and to the right of it for the two clean ones; an arrow stands where nothing arrives at z T."}}
fig, (left, right) = plt.subplots(
    1,
    2,
    figsize=(4.6, 3.4),
    sharey=True,
    width_ratios=(3, 2),
)
place = range(len(norms))
for shift, x, colour in ((-0.2, "Z", BLUE), (0.2, "c", ORANGE)):
    ratio = [n[x] / norms["none"][x] for n in norms.values()]
    y = [k + shift for k in place]
    left.barh(y, ratio, height=0.36, color=colour, label=f"of {x}")
left.set(xscale="log", yticks=place, yticklabels=list(norms))
left.invert_yaxis()
left.set_title("gradient,\nrelative to none", fontsize=10)
left.legend(frameon=False, fontsize=9)
right.axvline(math.sqrt(gamma[T]), ls=":", color=GREY)
for k, n in enumerate(norms.values()):
    if n["z"][0]:
        right.plot(n["Z"] / n["z"][0], k, "o", color=PURPLE)
    else:  # nothing arrives at z_T
        right.plot(100, k, ">", color=PURPLE)
right.set(xscale="log", xlim=(0.008, 200))
right.set_title("of Z, over\nthat of $z_T$", fontsize=10)
for axis in (left, right):
    axis.grid(axis="x", alpha=0.3)
fig.tight_layout()
# %% [markdown]
# *Left, the norms of both gradients, relative to the row without residual. Right, the gradient of
# $\Z$ over the one that arrives at $z_T$; the dotted line is $\sqrt{\gamma_T} = 0.029$. The arrow:
# nothing arrives at $z_T$, since the clean code takes its place.*
#
# ```{admonition} Answer
# :class: dropdown
# Compare rows of the same sampler: equation (6) has six times the gradient of $\Z$ of (5). Beside
# "none" the noised source in $\hat z_0$ has 3 times as much, the clean source in the mean 14 times,
# and the public code 18 times. Every residual makes it larger; the clean ones by far the most. The
# right side has the reason.
# Where nothing but $z_T$ brings $\Z$ into the chain, its gradient is that of $z_T$ times
# $\sqrt{\gamma_T} = 0.029$, with equation (6) too. The clean source is a way round that factor.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"]
size = {name: {x: n[x] for x in "Zc"} for name, n in norms.items()}
relative = pd.DataFrame(size).T / pd.Series(size["none"])
relative.rename(columns="dL/d{}".format).round(3)

# %% tags=["hide-cell"]
for n in norms.values():
    assert all(x > 0 for x in (n["Z"], n["c"], *n["z"][1:]))
factor = math.sqrt(gamma[T])
alone = set()
for name, n in norms.items():
    if math.isclose(n["Z"], factor * n["z"][0], rel_tol=1e-3):
        alone.add(name)
assert alone == {"none", "eq. (5)", "eq. (6)", "noised in z0"}
assert norms["public"]["Z"] > 2 * norms["eq. (6)"]["Z"]
assert norms["eq. (6)"]["Z"] > norms["eq. (5)"]["Z"]
for name in ("public", "clean in mean", "noised in z0"):
    assert norms[name]["Z"] > norms["none"]["Z"]

# %% [markdown]
# And the chain itself, does the gradient vanish on it? State by state, from $z_T$ to $z_0$:

# %% mystnb={"image": {"alt": "Norm of the gradient at each state, from t = 10 to t = 0, on a logarithmic axis, for none, (5), (6) and the public code. The lines without residual are nearly level. That of (6) drops nearly a thousandfold from t = 10 to 9 and climbs back by t = 5. That of the public code is level down to t = 5 and then rises a little."}}
fig, axis = plt.subplots(figsize=(4.6, 3.2))
looks = {
    "none": "-o",
    "eq. (5)": "--s",
    "eq. (6)": "-.^",
    "public": ":D",
}
colours = (GREY, PURPLE, BLUE, ORANGE)
for (name, look), colour in zip(looks.items(), colours, strict=True):
    line = norms[name]["z"]
    axis.plot(range(T, -1, -1), line, look, ms=4, color=colour, label=name)
axis.set(xlabel="state t", yscale="log", xlim=(T + 0.3, -0.3))
axis.set_ylabel("norm of the gradient there")
axis.set_title("Does the gradient vanish on the chain?", fontsize=11)
axis.legend(frameon=False, fontsize=9)
axis.grid(alpha=0.3)
fig.tight_layout()
Path(out).mkdir(parents=True, exist_ok=True)
fig.savefig(Path(out) / "gradients.png", dpi=100)
# %% [markdown]
# *The norm of the gradient at each state of the walk, on the way from $z_T$ (left) to $z_0$.*

# %% tags=["hide-cell"]
assert norms["none"]["z"][0] > 0.5 * norms["none"]["z"][-1]

# %% [markdown]
# Without a residual the norm at $z_T$ is about twice that at $z_0$ for "none", and a little less
# than half of it for equation (5): on this prior, with ten steps, nothing vanishes on the chain.
# What makes the gradient of $\Z$ small is the one factor between $z_T$ and $\Z$. With equation (6)
# almost nothing is left at the state after $z_T$: of it the later steps keep the shares 0.1, 0.2,
# ..., 0.9, whose product is 0.0004. At $z_T$ itself the norm is large, since each of the ten steps
# mixes $z_T$ in.
#
# ```{admonition} What this shows, and what not
# :class: ours
# One prior, of digits at 32 px, one network, one loss. The paper reports that equation (6) raises
# the norm by 66.87 % on ImageNet's prior; here it rises about sixfold against equation (5), and is
# 1.7 times that of "none". That the
# factor $\sqrt{\gamma_T}$ limits it holds for every prior, since it is the chain rule.
# ```

# %% [markdown]
# ## Move it yourself
#
# Set `sliders = True` in the parameters, and the next cell has a slider for each choice that makes
# a residual. Which of them changes the digits most, and which the gradient of $\Z$?


# %% mystnb={"image": {"alt": "Five digits through the public code's residual in ten steps, with the norms of the gradients of Z and c above."}}
def through(into, source, decay, T):
    """Digits through a residual, and the norms of both gradients."""
    config = SamplerConfig(steps=T, residual=Residual(into, source, decay))
    with torch.no_grad():
        made = generate(prior, Z, c, noise, config)[shown]
    found = gradients(config)
    fig = viz.image_grid(made, len(shown), scale=0.8)
    title = f"gradient of Z {found['Z']:.2g}, of c {found['c']:.2g}"
    fig.suptitle(title, fontsize=10, y=1.12)
    plt.show()


viz.with_sliders(
    through,
    sliders,
    into=("x0", "mean", "noise"),
    source=("clean", "noised"),
    decay=("linear", "exponential", "cosine", "sqrt", "constant"),
    T=(10, 2, 5, 20),
)
# %% [markdown]
# *The same codes and noise throughout.*

# %% [markdown]
# ## Exercises
#
# 1. Give equation (6) a weight that uses the first prediction, and still falls linearly to the end.
# 2. Set $\eta = 0$ and `into="mean"`, `source="noised"`. Compute the final state of the toy for $p
#    = q = 0$ by hand.
# 3. What happens to $\sqrt{\gamma_T}$ at $T = 40$, and to which rows of `VARIANTS` does that
#    matter?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# For example $(t-1)/(T-1)\cdot w$ with $w < 1$; or $(t-1)/T$, which is $0.9$ at the first of ten
# steps and 0 at the last. The folded cell has both, with $w = 0.9$.
# ```

# %% tags=["hide-cell"]
first = {t: round(0.9 * (t - 1) / (T - 1), 2) for t in (T, 5, 1)}
second = {t: (t - 1) / T for t in (T, 5, 1)}
print("w (t - 1)/(T - 1):", first)
print("(t - 1)/T:        ", second)
assert max(*first.values(), *second.values()) < 1

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# With $f = 0$ the mean is $z_t\sqrt{\gamma_{t-1}/\gamma_t}$, since $\hat z_0 = z_t/\sqrt{\gamma_t}$
# is scaled by $\sqrt{\gamma_{t-1}}$. So
# $z_{t-1} = (1-\frac tT)\,z_t\sqrt{\gamma_{t-1}/\gamma_t} + \frac tT z_T$, and every state is a
# multiple of $z_T$. The folded cell follows the multiple, and finds the package's states there.
# ```

# %% tags=["hide-cell"]
silent = Toy()
silent.p = silent.q = 0.0
multiples = [1.0]
for t in range(T, 0, -1):
    kept = (1 - t / T) * math.sqrt(gamma[t - 1] / gamma[t])
    multiples.append(kept * multiples[-1] + t / T)
with_zero = package(PAPER_RESIDUAL, 0, prior=silent)
near(with_zero, torch.tensor(multiples).view(-1, 1, 1, 1, 1) * with_zero[0])
print("multiples of z_T:", [round(m, 2) for m in multiples])

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# $\sqrt{\gamma_T}$ falls by half, so the rows "none", "eq. (5)", "eq. (6)" and "noised in z0" lose
# half of their gradient by that alone; the clean sources do not.
# ```

# %% tags=["hide-cell"]
last = {n: alpha_bar[sampler.timesteps(n, 1000)[-1]] for n in (10, 40)}
print("sqrt(gamma_T):", {n: round(math.sqrt(g), 4) for n, g in last.items()})
assert 0.45 < math.sqrt(last[40] / last[10]) < 0.55

# %% [markdown]
# **To take away.** Equation (4) and the step by way of $\hat z_0$ are one step, so all variants are
# one loop with a residual of three choices: what is mixed in, into what, and how fast it falls.
# Equation (6) mixes in $z_T$, which holds three per cent of $\Z$, and every gradient of $\Z$ passes
# that factor. The clean code is a way round it: the image stays near the start, and the gradient is
# many times larger.
#
# **Next:** where the codes begin, and what survives of them:
# {doc}`../book/method/32_initialisation`, and {doc}`32_initialise_latents`.

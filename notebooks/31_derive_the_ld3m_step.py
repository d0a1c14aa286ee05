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
# **You will** compute equations (1) to (6) of section 3.1 by hand, with a noise predictor so simple
# that a calculator would do, find the package's loop equal to your own, and then measure on the
# shipped prior what the residual does to images and gradients.
#
# **You will learn** where each coefficient of a sampler step comes from, how the paper's step and
# the public code's differ, and which of the two gives $\Z$ a gradient.
#
# **You need** one CPU core and half a minute. The derivations are on
# {doc}`../book/method/31_sampling`.

# %% tags=["parameters"]
import os

# smoke: one image a class; else three, for steadier gradients
preset = os.environ.get("LD3M_PRESET", "smoke")
seed = 0  # of every random draw
# where the figure of the gradients goes
out = os.environ.get("LD3M_OUT", "../runs/derive_the_ld3m_step")

# %%
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ld3m_min import sampler
from ld3m_min.experiments import figures as viz
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import NO_RESIDUAL, PAPER_RESIDUAL, PUBLIC_RESIDUAL, Residual
from ld3m_min.sampler import SamplerConfig, generate_latents

T = 10

# %% [markdown]
# ## The coefficients
#
# The prior was trained on a thousand steps of noise; the sampler visits $T = 10$ of them.
# Everything in equations (3) to (6) follows from one number for each visited step, $\gamma_t$: the
# share of the signal's variance that is left.

# %%
alpha_bar = alphas_cumprod(ldm_scheduler()).tolist()  # for all 1000 training steps
visited = sampler.timesteps(T, 1000)
gamma = [alpha_bar[0], *(alpha_bar[t] for t in visited)]  # gamma[t] for t = 0 ... T
alpha = [None, *(gamma[t] / gamma[t - 1] for t in range(1, T + 1))]
sigma = [
    None,
    *(math.sqrt((1 - gamma[t - 1]) / (1 - gamma[t]) * (1 - alpha[t])) for t in range(1, T + 1)),
]
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
Z, noise = (torch.randn(3, 1, 2, 2, generator=g, dtype=torch.float64) for _ in range(2))
c = torch.randn(3, 1, 1, generator=g, dtype=torch.float64)

# %% [markdown]
# ## Equation (4) is the mean of DDIM at eta = 1
#
# The paper takes the mean from DDPM: subtract a share of the predicted noise, divide by
# $\sqrt{\alpha_t}$. The package goes another way: first the clean latent that the prediction
# implies, $\hat z_0$, then noise it again, but less. With fresh noise of standard deviation
# $\sigma_t$, both are the same.


# %%
def mu_ddpm(z, f, t):  # equation (4)
    return (z - (1 - alpha[t]) / math.sqrt(1 - gamma[t]) * f) / math.sqrt(alpha[t])


def mu_ddim(z, f, t):  # what ld3m_min.sampler computes, for eta = 1
    z0 = (z - math.sqrt(1 - gamma[t]) * f) / math.sqrt(gamma[t])
    return math.sqrt(gamma[t - 1]) * z0 + math.sqrt(1 - gamma[t - 1] - sigma[t] ** 2) * f


f = toy.predict_noise(Z, None, c)
print([torch.allclose(mu_ddpm(Z, f, t), mu_ddim(Z, f, t), rtol=1e-9) for t in range(T, 0, -1)])

# %% [markdown]
# ## Equations (5) and (6) by hand
#
# Equation (5) adds fresh noise to the mean; equation (6) first mixes the initial state into it,
# with weight $t/T$.


# %%
def paper(Z, c, noise, residual, f=toy.predict_noise):
    fresh = sampler.ancestral_noise(noise, T)  # one for each step
    z_T = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
    z = z_T
    for t in range(T, 0, -1):
        mean = mu_ddpm(z, f(z, t, c), t)
        if residual:
            mean = (1 - t / T) * mean + t / T * z_T  # equation (6)
        z = mean + sigma[t] * fresh[t - 1]  # sigma, not its square: see below
    return z


def package(residual, eta, prior=toy):
    return generate_latents(
        prior, Z, c, noise, SamplerConfig(steps=T, guidance_scale=1, eta=eta, residual=residual)
    )


print("(5):", torch.allclose(paper(Z, c, noise, False), package(NO_RESIDUAL, eta=1)))
print("(6):", torch.allclose(paper(Z, c, noise, True), package(PAPER_RESIDUAL, eta=1)))

# %% [markdown]
# ## The public code's step by hand
#
# It adds no fresh noise ($\eta = 0$), mixes in the **clean** code, quantised, and mixes it into the
# predicted **clean** latent, before the next state is made of it. The weight falls from 1 to 0, not
# to $1/T$.


# %%
def public(Z, c, noise):
    z = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
    for t in range(T, 0, -1):
        f = toy.predict_noise(z, t, c)
        z0 = (z - math.sqrt(1 - gamma[t]) * f) / math.sqrt(gamma[t])
        w = (t - 1) / (T - 1)
        z0 = (1 - w) * z0 + w * toy.quantize(Z)
        z = math.sqrt(gamma[t - 1]) * z0 + math.sqrt(1 - gamma[t - 1]) * f
    return z


print(torch.allclose(public(Z, c, noise), package(PUBLIC_RESIDUAL, eta=0)))

# %% [markdown]
# ## What happens at t = T
#
# There the weight is 1. Equation (6) replaces the mean by $z_T$ as a whole, so the first prediction
# of the network is lost. Make that prediction absurd, and nothing changes; in the public code it
# still gives the noise of the next state.


# %%
class Absurd(Toy):
    def predict_noise(self, z, t, c):
        return super().predict_noise(z, t, c) + 100.0 * (t == visited[-1]).view(-1, 1, 1, 1)


for name, residual, eta in (
    ("equation (6)", PAPER_RESIDUAL, 1),
    ("public code", PUBLIC_RESIDUAL, 0),
):
    print(
        f"{name}: the same result,",
        torch.equal(package(residual, eta), package(residual, eta, prior=Absurd())),
    )

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


assert abs(final_variance(1000, 1) - 1) < 0.02 and final_variance(1000, 2) < 0.01
pd.DataFrame(
    {
        n: {"sigma": final_variance(n, 1), "sigma^2": final_variance(n, 2)}
        for n in (10, 50, 200, 1000)
    }
).round(4)

# %% [markdown]
# With $\sigma_t$ the variance comes out right as the steps become finer (with few steps, too little
# noise is added, as is known of this choice of $\sigma_t$). With its square it dies out, and the
# more so the more steps there are; what that does to images is measured in [another
# notebook](nb-diff-sigma). The square is a slip of the pen, and the package adds
# $\sigma_t\,\varepsilon_t$.
#
# ## Other decays
#
# The weight need not fall linearly. The paper leaves other decays to future work; here they are
# values of one field.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.6, 2.6), sharey=True)
steps = range(T, 0, -1)
for axis, into in zip(axes, ("mean", "x0"), strict=True):
    for decay in sampler.DECAYS:
        weights = [Residual(into, "clean", decay).weight(t - 1, T) for t in steps]
        axis.plot(steps, weights, marker=".", lw=1.2, label=decay)
    axis.set(xlabel="step t", xlim=(T + 0.3, 0.7))
    axis.set_title(
        {"mean": "into the mean, as equation (6)", "x0": "into the clean latent, as the code"}[
            into
        ],
        fontsize=9,
    )
    axis.grid(alpha=0.3)
axes[0].set_ylabel("weight of the initial state")
axes[1].legend(frameon=False, fontsize=8, bbox_to_anchor=(1.02, 1))
fig.tight_layout()
# %% [markdown]
# ## On a real prior: images
#
# Ten digits, encoded; the noise is drawn once and is the same in every row. One setting differs
# from row to row.

# %%
from ld3m_min.data import load_data
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network
from ld3m_min.spaces import draw_initial_images
from ld3m_min.spaces.ld3m import forward_noise

data, prior = load_data("digits"), LatentDiffusionPrior.from_pretrained("digits")
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
shown = [k * len(labels) // 10 for k in (2, 4, 6, 7, 9)]
_ = viz.image_grid(
    torch.cat([x[shown] for x in (images, *made.values())]),
    5,
    row_labels=["real", *made],
    scale=0.7,
)

# %% [markdown]
# Without the residual the prior writes its own digit of the class $c$, not the one that $\Z$
# encodes. With equation (6) noise is mixed into every state, the last one included, and the strokes
# suffer. With the clean code the image stays near the one that $\Z$ came from. How near, in mean
# squared difference, relative to the row without residual:

# %% tags=["nbval-ignore-output"]
distance = {name: float((x - images).square().mean()) for name, x in made.items()}
print({name: round(d / distance["none"], 4) for name, d in distance.items()})
assert max(distance["public"], distance["clean in mean"]) < 0.5 * distance["none"]

# %% [markdown]
# ## On a real prior: gradients
#
# The reason the paper gives for the residual is the gradient of $\Z$, which has to pass all the
# steps. Take one loss, the distance of ten mean embeddings (distribution matching), and record the
# norm of its gradient at every state. The callback sees each state as it is made; `retain_grad`
# keeps what autograd computes there.

# %%
network = build_network(
    "ConvNet", size=32, depth=3, width=32, generator=seeded(seed, "network")
).requires_grad_(False)
target = torch.stack(
    [
        network.embed(data.normalise(data.train.sample_class(k, 64, seeded(seed, "real", k)))).mean(
            0
        )
        for k in range(10)
    ]
)


def gradients(config):
    codes, states = [x.clone().requires_grad_() for x in (Z, c)], []

    def keep(step):
        for z in (step.z_next,) if states else (step.z, step.z_next):
            z.retain_grad()
            states.append(z)

    z0 = generate_latents(prior, *codes, noise, config, callback=keep)
    embedded = network.embed(data.normalise(prior.decode(z0))).unflatten(0, (10, -1)).mean(1)
    (embedded - target).square().sum().backward()
    return {
        "Z": codes[0].grad.norm().item(),
        "c": codes[1].grad.norm().item(),
        "z": [z.grad.norm().item() for z in states],
    }


norms = {name: gradients(config) for name, config in VARIANTS.items()}
print(
    {
        name: (len(n["z"]), all(x > 0 for x in (n["Z"], n["c"], *n["z"][1:])))
        for name, n in norms.items()
    }
)

# %% tags=["nbval-ignore-output"]
pd.DataFrame(
    {name: {f"dL/d{x}": n[x] / norms["none"][x] for x in "Zc"} for name, n in norms.items()}
).T.round(3)

# %% [markdown]
# Compare rows of the same sampler, equation (6) with (5) and the others with "none": every residual
# makes the gradient of $\Z$ larger; the clean ones by far the most. The reason is in the first
# table. Where nothing but $z_T$ brings $\Z$ into the chain, its gradient is that of $z_T$ times
# $\sqrt{\gamma_T} = 0.029$, with equation (6) too. The clean source is a way round that factor.

# %%
factor = math.sqrt(gamma[T])
print({name: math.isclose(n["Z"], factor * n["z"][0], rel_tol=1e-3) for name, n in norms.items()})
assert (
    norms["public"]["Z"] > 2 * norms["eq. (6)"]["Z"]
    and norms["eq. (6)"]["Z"] > norms["eq. (5)"]["Z"]
)

# %% [markdown]
# And the chain itself, does the gradient vanish on it? State by state, from $z_T$ to $z_0$:

# %%
fig, axis = plt.subplots(figsize=(6, 2.8))
for name, style in (("none", "-"), ("eq. (5)", "--"), ("eq. (6)", "-."), ("public", ":")):
    axis.plot(range(T, -1, -1), norms[name]["z"], style, marker=".", label=name)
assert norms["none"]["z"][0] > 0.5 * norms["none"]["z"][-1]
axis.set(xlabel="state t", ylabel="norm of the gradient there", yscale="log", xlim=(T + 0.3, -0.3))
axis.legend(frameon=False, fontsize=8)
axis.grid(alpha=0.3)
fig.tight_layout()
Path(out).mkdir(parents=True, exist_ok=True)
fig.savefig(Path(out) / "gradients.png", dpi=100)

# %% [markdown]
# Without a residual the norm at $z_T$ is of the size it has at $z_0$, or larger: on this prior,
# with ten steps, nothing vanishes on the chain. What makes the gradient of $\Z$ small is the one
# factor between $z_T$ and $\Z$. With equation (6) the norm drops to almost nothing at the state
# after $z_T$, since the chain is cut there, and is large at $z_T$, which has ten more ways to the
# image.
#
# ```{admonition} What this shows, and what not
# :class: ours
# One prior, of digits at 32 px, one network, one loss. The paper reports that equation (6) raises
# the norm by 66.87 % on ImageNet's prior; here it rises as well; by how much stands above. That the
# factor $\sqrt{\gamma_T}$ limits it holds for every prior, since it is the chain rule.
# ```
#
# ## Exercises
#
# 1. Which weight would equation (6) need to use the first prediction, and still to fall linearly to
#    the end?
# 2. Set $\eta = 0$ and `into="mean"`, `source="noised"`. Compute the final state of the toy for $p
#    = q = 0$ by hand.
# 3. How do `VARIANTS` rank at $T = 40$? What happens to $\sqrt{\gamma_T}$?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. For example $(t-1)/(T-1)\cdot w$ with $w < 1$; or $(t-1)/T$, which is $0.9$ at the first of ten
#    steps and 0 at the last.
# 2. With $f = 0$ the mean is $z_t\sqrt{\gamma_{t-1}/\gamma_t}$, since
#    $\hat z_0 = z_t/\sqrt{\gamma_t}$ is scaled by $\sqrt{\gamma_{t-1}}$. So
#    $z_{t-1} = (1-\frac tT)\,z_t\sqrt{\gamma_{t-1}/\gamma_t} + \frac tT z_T$, all multiples of
#    $z_T$; `Toy.p = Toy.q = 0` and `package(PAPER_RESIDUAL, 0)` give the same.
# 3. $\sqrt{\gamma_T}$ falls to 0.015, so the rows "none", "eq. (5)", "eq. (6)" and "noised in z0"
#    lose half of their gradient by that alone; the clean sources do not.
# ```
#
# **Next**: {doc}`32_initialise_latents`.

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-memory)=
# # Trade memory for time
#
# **You will** compute the gradients of section 3.3 by hand on a toy, equations (7) and (8), see
# that as printed both leave something out, get the same gradient from seven memory plans, and
# compare what the planner predicts with what is measured.
#
# **You will learn** why the derivative of $c$ is a sum over the steps, what each plan keeps and
# what it does twice, and how to know before a run whether it fits.
#
# **You need** one CPU core and a minute. The derivations are on {doc}`../book/method/33_memory`,
# the measurements on {doc}`../book/experiments/speed`.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "smoke")  # smoke: T = 2 on the shipped prior; else T = 10
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/trade_memory_for_time")  # where the table of plans goes

# %%
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ld3m_min import presets
from ld3m_min.backprop import Plan, generate_with_plan, ladder
from ld3m_min.planner.counter import Counter
from ld3m_min.planner.fallback import choose
from ld3m_min.planner.forecast import codes, forecast
from ld3m_min.planner.seconds import probe, seconds_of
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import NO_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate_latents

# %% [markdown]
# ## A toy chain
#
# A linear noise predictor, $f(c, z) = p z + q c$, and DDIM without noise. One step is then
# $z_{t-1} = A_t z_t + B_t c$ with numbers $A_t$ and $B_t$ that follow from the schedule, and the
# whole chain can be differentiated on paper.


# %%
class Toy:
    conditional, latent_channels, train_steps = True, 1, 1000
    alpha_bar = alphas_cumprod(ldm_scheduler())
    p, q = 0.6, 0.2

    def predict_noise(self, z, t, c):
        return self.p * z + self.q * c.view(-1, 1, 1, 1)

    def quantize(self, z):
        return z

    def decode(self, z):
        return z


toy, T = Toy(), 4
plain = SamplerConfig(steps=T, guidance_scale=1.0, residual=NO_RESIDUAL)
g = torch.Generator().manual_seed(seed)
Z, noise = (torch.randn(3, 1, 2, 2, generator=g, dtype=torch.float64) for _ in range(2))
c = torch.randn(3, 1, 1, generator=g, dtype=torch.float64)
visited = [1, 251, 501, 751]
# gamma[t] for t = 0 ... T
gamma = [float(toy.alpha_bar[0]), *(float(toy.alpha_bar[t]) for t in visited)]


def coefficients(t):
    """A_t and B_t of z_{t-1} = A_t z_t + B_t c: predict the clean latent, noise it again."""
    scale = math.sqrt(gamma[t - 1] / gamma[t])
    of_f = math.sqrt(1 - gamma[t - 1]) - scale * math.sqrt(1 - gamma[t])
    return scale + of_f * toy.p, of_f * toy.q


A, B = zip(*(coefficients(t) for t in range(1, T + 1)), strict=True)
z = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
for t in range(T, 0, -1):
    z = A[t - 1] * z + B[t - 1] * c.view(-1, 1, 1, 1)
assert torch.allclose(z, generate_latents(toy, Z, c, noise, plain), atol=1e-12)
print("the chain by hand is the package's:", True)

# %% [markdown]
# ## Equation (7): the gradient of $\Z$
#
# $$
# \frac{\partial\Loss}{\partial\Z} = \frac{\partial\Loss}{\partial
# z_0}\;\prod_{t=1}^{T}\frac{\partial z_{t-1}}{\partial z_t}
# \;\frac{\partial z_T}{\partial\Z}
# $$
#
# On the toy the product is $A_1 A_2 \cdots A_T$, and the last factor $\sqrt{\gamma_T}$. Let the
# loss be the sum of squares of $z_0$.


# %%
def by_autograd(residual):
    Zl, cl = Z.clone().requires_grad_(), c.clone().requires_grad_()
    z0 = generate_latents(toy, Zl, cl, noise, replace(plain, residual=residual))
    z0.square().sum().backward()
    return z0.detach(), Zl.grad, cl.grad


z0, dZ, dc = by_autograd(NO_RESIDUAL)
equation_7 = 2 * z0 * math.prod(A) * math.sqrt(gamma[T])
assert torch.allclose(equation_7, dZ, atol=1e-12)
print("equation (7) without a residual is the gradient:", torch.allclose(equation_7, dZ))

# %% [markdown]
# That was the plain sampler. A residual leads $\Z$ into every step, past the states. The product of
# the steps' derivatives knows one way only, and is then a part of the gradient.

# %%
_, dZ_residual, _ = by_autograd(PUBLIC_RESIDUAL)
w = [PUBLIC_RESIDUAL.weight(k, T) for k in range(T)]  # w[t-1] at step t
# the predicted clean latent counts 1 - w
A_residual = [
    a - w[t - 1] * math.sqrt(gamma[t - 1] / gamma[t]) * (1 - math.sqrt(1 - gamma[t]) * toy.p)
    for t, a in zip(range(1, T + 1), A, strict=True)
]
z0_residual = by_autograd(PUBLIC_RESIDUAL)[0]
along_states = math.prod(A_residual) * math.sqrt(gamma[T])
past_states = sum(
    w[t - 1] * math.sqrt(gamma[t - 1]) * math.prod(A_residual[: t - 1]) for t in range(1, T + 1)
)
assert torch.allclose(2 * z0_residual * (along_states + past_states), dZ_residual, atol=1e-12)
share = along_states / (along_states + past_states)
print(f"share of the gradient that equation (7) has: {share:.3f}")
assert share < 0.1

# %% [markdown]
# With the public code's residual the first step drops the clean latent that it predicts, and $z_T$
# goes on through the predicted noise alone. So the way along the states, which is all that (7) has,
# is a small part; nearly all of the gradient comes the other way.
#
# ## Equation (8): the gradient of $c$
#
# The paper prints it like (7), with $\partial z_T/\partial c$ at the end. But $z_T$ is made of $\Z$
# and noise: that factor is zero. What $c$ does, it does in the steps, at each of them. On the toy
# step $t$ adds $B_t c$, which the steps after it multiply by $A_{t-1} \cdots A_1$:
#
# $$
# \frac{\partial\Loss}{\partial c} = \frac{\partial\Loss}{\partial
# z_0}\;\sum_{t=1}^{T}\Bigl(\prod_{s<t}\frac{\partial
# z_{s-1}}{\partial z_s}\Bigr)\frac{\partial z_{t-1}}{\partial c}
# $$

# %%
terms = [B[t - 1] * math.prod(A[: t - 1]) for t in range(1, T + 1)]
total = 2 * z0.sum((1, 2, 3)) * sum(terms)
assert torch.allclose(total.view_as(dc), dc, atol=1e-12) and dc.abs().min() > 0
print("the sum over the steps is the gradient:", torch.allclose(total.view_as(dc), dc))
print("share of each step, t = 1 ... T:", [round(x / sum(terms), 3) for x in terms])

# %% [markdown]
# ## What has to be kept
#
# To multiply with $\partial z_{t-1}/\partial z_t$, the backward pass needs the activations of the
# U-Net at step $t$. Keep them all, and memory grows with $T$. Throw them away and make them again
# when they are needed: that is {term}`gradient checkpointing`. Below, one generation on the shipped
# prior of the digits; `Counter` sees every tensor that is made and every one that goes.

# %%
prior = LatentDiffusionPrior.from_pretrained("digits")
settings = presets.preset(
    "cpu", algorithm="DC", seed=seed, sampler=SamplerConfig(steps=2 if preset == "smoke" else 10)
)
weights = [p for m in prior.modules for p in m.parameters()]


def gradients(plan, chosen=settings):
    Z, c, noise = codes(prior, chosen, "cpu")
    with Counter(weights) as ledger:
        images = generate_with_plan(prior, Z, c, noise, chosen.sampler, plan)
        held = ledger.now
        images.square().sum().backward()
    return (Z.grad, c.grad), held, ledger.peak


results = {name: gradients(plan) for name, plan in ladder(settings.sampler.steps).items()}
first = results["one-pass"][0]
same = {
    name: all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-5 * a.abs().max().item())
        for a, b in zip(first, r[0], strict=True)
    )
    for name, r in results.items()
}
assert all(same.values())
same

# %% [markdown]
# Seven plans, one gradient. (In float64 they agree to $10^{-10}$, which a test demands.) And what
# they cost:

# %% tags=["nbval-ignore-output"]
rows = {}
for name, plan in ladder(settings.sampler.steps).items():
    said, (_, held, peak) = (
        forecast(prior, settings, plan, matching=False, name=name),
        results[name],
    )
    Z, c, noise = codes(prior, settings, "cpu")

    def once(plan=plan, Z=Z, c=c, noise=noise):
        generate_with_plan(prior, Z, c, noise, settings.sampler, plan).sum().backward()

    rows[name] = {
        "predicted MiB": said.peak_bytes / 2**20,
        "measured MiB": peak / 2**20,
        "left after forward": held / 2**20,
        "GFLOP": said.flops / 1e9,
        "predicted s": probe(prior, settings, plan, repeats=1),
        "measured s": seconds_of(once, "cpu", repeats=1),
    }
plans = pd.DataFrame(rows).T.round(2)
Path(out).mkdir(parents=True, exist_ok=True)
plans.to_csv(Path(out) / "plans.csv")
plans

# %% [markdown]
# The prediction was made on tensors without data, before anything was computed. How good is it?

# %%
errors = (plans["predicted MiB"] / plans["measured MiB"] - 1).abs()
assert errors.max() < 0.2
print("every prediction of memory within 20 %:", bool(errors.max() < 0.2))
work = plans["GFLOP"] / plans.loc["one-pass", "GFLOP"]
print("work, nothing recomputed = 1:", {k: round(float(v), 1) for k, v in work.items()})

# %% [markdown]
# Recomputing all steps costs one more forward pass; the paper's two passes cost one more again, and
# chunks need as little memory without them. "Selective" recomputes only normalisations and
# activations, which are cheap: it does hardly more multiplications than keeping everything.
#
# ## Memory against $T$
#
# The claim of section 3.3 in one figure: with checkpoints, memory does not grow with the number of
# steps.

# %% tags=["nbval-ignore-output"]
lengths = (1, 2, 3) if preset == "smoke" else (1, 2, 5, 10, 20)
peaks = {}
for name in ("one-pass", "per-step"):
    plan = ladder(4)[name]
    peaks[name] = [
        forecast(
            prior, replace(settings, sampler=SamplerConfig(steps=n)), plan, matching=False
        ).peak_bytes
        for n in lengths
    ]
figure, axis = plt.subplots(figsize=(5, 2.6))
for name, values in peaks.items():
    axis.plot(lengths, [v / 2**20 for v in values], "o-", label=name)
axis.set(xlabel="steps T", ylabel="peak, MiB", ylim=(0, None))
axis.grid(alpha=0.3)
axis.legend(frameon=False)
# %%
grows, flat = (v[-1] / v[0] for v in peaks.values())
print(
    f"from T = {lengths[0]} to T = {lengths[-1]}: one pass grows, per step does not:",
    bool(grows > 1.5),
    bool(flat < 1.1),
)
assert grows > 1.5 and flat < 1.1

# %% [markdown]
# ## Will it fit?
#
# `choose` asks the planner for one plan after the other, the fastest first, and takes the first
# that fits into the memory there is. A run with `plan=AUTO` (`--plan auto`) does the same; and
# `python -m ld3m_min plan` prints the table for any preset.

# %%
for limit in (1000, 80, 15):
    print(
        f"{limit:5d} MiB:",
        choose(
            prior, replace(settings, algorithm="DM", batch_real=8), available=limit * 2**20
        ).name,
    )

# %% [markdown]
# ## A trap: frozen weights under autocast
#
# Half precision halves the activations. PyTorch's autocast casts weights to half precision at each
# call, and remembers the copy only for weights that are trained. Ours are frozen: each of the $T$
# calls makes copies of its own, and the backward pass keeps them all. The package casts the weights
# once. Counted on the released prior's size, with 401 million weights of two bytes:

# %%
copies = 400_920_579 * 2 / 2**30
print(
    f"a copy of the U-Net's weights in half precision: {copies:.2f} GiB; "
    f"ten of them: {10 * copies:.1f} GiB"
)

# %% tags=["nbval-ignore-output"]
low, _, peak_low = gradients(Plan(precision="bfloat16"))
peak_high = results["one-pass"][2]
cosine = torch.cosine_similarity(
    *(
        torch.cat([x.flatten() / r.norm() for x, r in zip(g, first, strict=True)])
        for g in (low, first)
    ),
    dim=0,
).item()
print(
    f"bfloat16 against float32: {peak_low / peak_high:.2f} of the memory, "
    f"cosine of the gradients {cosine:.5f}"
)
assert cosine > 0.999

# %% [markdown]
# ## Exercises
#
# 1. With `PER_STEP`, which part of the generator sets the peak? Use `forecast(...).held_bytes` and
#    a decoder chunk of 1.
# 2. Half of the steps recomputed: predict work and memory from the rows "one-pass" and "per-step",
#    then compare with "half".
# 3. Why does the two-pass plan need chunks to be of any use?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. Almost nothing is held after the forward pass, so the peak is one step's activations or one
#    decoded image's, whichever is larger. Without the decoder's chunk it is the decoder's of all
#    images.
# 2. Work is the mean of the two rows, since half of the steps are done twice; memory is near half
#    of "one-pass", since half of the activations are kept.
# 3. A checkpoint around the whole generator recomputes everything at once in the backward pass, and
#    has then the peak of whatever is inside. With chunks only one chunk's graph exists at a time:
#    that helps when there are many images.
# ```
#
# **Next**: {doc}`41_load_data_and_judge`.

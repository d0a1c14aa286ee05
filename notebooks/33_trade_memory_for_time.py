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
# A gradient through ten steps of a U-Net doesn't fit into your memory. What can you give up for it?
#
# **You will** compute the gradients of section 3.3 by hand on a toy, equations (7) and (8), see
# that as printed both leave something out, get the same gradient from seven memory plans, and
# compare what the planner predicts with what is measured.
#
# **You will learn** why the derivative of $c$ is a sum over the steps, what each plan keeps and
# what it does twice, and how to know before a run whether it fits.
#
# **You need** one CPU core, 1 GB of memory and half a minute (preset `smoke`, with $T = 2$; two
# minutes with `cpu`, where $T = 10$). No GPU, no Internet. The derivations are on
# {doc}`../book/method/33_memory`, the measurements on {doc}`../book/experiments/speed`. What is
# claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# smoke: T = 2 on the shipped prior; else T = 10
preset = os.environ.get("LD3M_PRESET", "smoke")
seed = 0  # of every random draw
# where the table of plans goes
out = os.environ.get("LD3M_OUT", "../runs/trade_memory_for_time")
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
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import presets
from ld3m_min.backprop import PER_STEP, Plan, generate_with_plan, ordered_plans
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE
from ld3m_min.planner.counter import Counter
from ld3m_min.planner.fallback import choose
from ld3m_min.planner.forecast import codes, forecast
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import NO_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate_latents

viz.use_style()
set_matplotlib_formats("png")
near = torch.testing.assert_close
MIB = 2**20


def plot(rows=1, columns=1, **kwargs):
    """Empty plots."""
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


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
kind = {
    "generator": torch.Generator().manual_seed(seed),
    "dtype": torch.float64,
}
Z, noise = (torch.randn(3, 1, 2, 2, **kind) for _ in range(2))
c = torch.randn(3, 1, 1, **kind)
visited = (0, 1, 251, 501, 751)
gamma = [float(toy.alpha_bar[t]) for t in visited]  # t = 0 ... T
ts = range(1, T + 1)


def coefficients(t):
    """A_t and B_t: predict the clean latent, noise it again."""
    scale = math.sqrt(gamma[t - 1] / gamma[t])
    of_f = math.sqrt(1 - gamma[t - 1]) - scale * math.sqrt(1 - gamma[t])
    return scale + of_f * toy.p, of_f * toy.q


A, B = zip(*(coefficients(t) for t in ts), strict=True)
z = math.sqrt(gamma[T]) * Z + math.sqrt(1 - gamma[T]) * noise
for t in reversed(ts):
    z = A[t - 1] * z + B[t - 1] * c.view(-1, 1, 1, 1)
package = generate_latents(toy, Z, c, noise, plain)
print("A:", [round(a, 2) for a in A], "B:", [round(b, 3) for b in B])
print(f"one number of z_0: by hand {z[0, 0, 0, 0]:.4f}, ", end="")
print(f"package {package[0, 0, 0, 0]:.4f}")

# %% tags=["hide-cell"]
near(z, package, rtol=0, atol=1e-12)

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
# loss be the sum of squares of $z_0$. Without a residual, (7) is the gradient. A residual leads
# $\Z$ into every step, past the states. The product of the steps' derivatives knows one way only,
# and is then a part of the gradient.
#
# ```{admonition} Make a prediction
# With the public code's residual: which share of the gradient does (7) have, about all of it, half,
# or next to nothing?
# ```


# %%
def by_autograd(residual):
    leaves = [x.clone().requires_grad_() for x in (Z, c)]
    config = replace(plain, residual=residual)
    z0 = generate_latents(toy, *leaves, noise, config)
    z0.square().sum().backward()
    return z0.detach(), *(x.grad for x in leaves)


z0, dZ, dc = by_autograd(NO_RESIDUAL)
equation_7 = 2 * z0 * math.prod(A) * math.sqrt(gamma[T])

z0_residual, dZ_residual, _ = by_autograd(PUBLIC_RESIDUAL)
w = [PUBLIC_RESIDUAL.weight(k, T) for k in range(T)]  # w[t-1] at step t
mixed = []  # A_t, where the predicted clean latent counts 1 - w
for t in ts:
    scale = math.sqrt(gamma[t - 1] / gamma[t])
    kept = scale * (1 - math.sqrt(1 - gamma[t]) * toy.p)
    mixed.append(A[t - 1] - w[t - 1] * kept)
along = math.prod(mixed) * math.sqrt(gamma[T])
past = {
    t: w[t - 1] * math.sqrt(gamma[t - 1]) * math.prod(mixed[: t - 1])
    for t in ts
}
whole = along + sum(past.values())

# %% mystnb={"image": {"alt": "Two horizontal bars. Without residual the whole bar is the way along the states, equation (7). With the public code's residual that is a sliver of three per cent; nearly all of the bar is the ways past the states."}}
fig, axis = plot(figsize=(4.6, 1.9))
shares = {"none": 1.0, "public code": along / whole}
names = list(shares)
axis.barh(names, shares.values(), color=BLUE, label="along the states, (7)")
rest = [1 - x for x in shares.values()]
style = {"color": ORANGE, "label": "past the states"}
axis.barh(
    names, rest, left=list(shares.values()), hatch="//", ec="white", **style
)
axis.invert_yaxis()
axis.set(xlim=(0, 1), xlabel="share of the gradient of Z")
axis.set_title(f"Public code: equation (7) has {100 * along / whole:.0f} %")
_ = fig.legend(loc="outside lower center", ncols=2)
# %% [markdown]
# *The two kinds of ways from $\Z$ to $z_0$, on the toy with $T = 4$.*
#
# ```{admonition} Answer
# :class: dropdown
# Next to nothing. With the public code's residual the first step drops the clean latent that it
# predicts, and $z_T$ goes on through the predicted noise alone. Nearly all of the gradient comes
# the other way.
# ```

# %% tags=["hide-cell"]
near(equation_7, dZ, rtol=0, atol=1e-12)
near(2 * z0_residual * whole, dZ_residual, rtol=0, atol=1e-12)
assert 0 < along / whole < 0.1

# %% [markdown]
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
#
# ```{admonition} Make a prediction
# Which step has the largest part in it: the noisy first one, $t = 4$, or the last one, $t = 1$?
# ```

# %%
terms = [B[t - 1] * math.prod(A[: t - 1]) for t in ts]
total = 2 * z0.sum((1, 2, 3)) * sum(terms)

# %% mystnb={"image": {"alt": "Four bars, the share of each step in the gradient of c. Step 4, the first and noisiest, has 61 per cent, steps 3 and 2 about a fifth each, step 1 almost nothing. A dotted line at zero is marked as equation (8) as printed."}}
fig, axis = plot(figsize=(4.6, 2.4))
shares = [100 * x / sum(terms) for x in terms]
bars = axis.bar(ts, shares, color=BLUE, width=0.6)
axis.bar_label(bars, [f"{x:.1f} %" for x in shares], fontsize=9)
axis.axhline(0, color=ORANGE, ls="--")
axis.text(1.1, 13, "(8) as printed: 0", color=ORANGE, fontsize=9, ha="center")
axis.set(xlabel="step t", ylabel="share of dL/dc, %", ylim=(-4, 70))
axis.set(xticks=ts, xlim=(4.5, 0.5))
_ = axis.set_title("Every step has a part in the gradient of c")
# %% [markdown]
# *The four terms of the sum, on the toy. Equation (8) as printed would be zero.*
#
# ```{admonition} Answer
# :class: dropdown
# The first one. On this toy $c$ moves the next state most at $t = 4$, and the later steps don't
# undo that. The last step, from $t = 1$, changes almost nothing.
# ```

# %% tags=["hide-cell"]
near(total.view_as(dc), dc, rtol=0, atol=1e-12)
assert dc.abs().min() > 0 and shares.index(max(shares)) == T - 1

# %% [markdown]
# ## What has to be kept
#
# To multiply with $\partial z_{t-1}/\partial z_t$, the backward pass needs the activations of the
# U-Net at step $t$. Keep them all, and memory grows with $T$. Throw them away and make them again
# when they are needed: that is {term}`gradient checkpointing`. The package has seven plans; below,
# each makes ten digits on the shipped prior and goes back. `Counter` sees every tensor that is made
# and every one that goes.
#
# ```{admonition} Make a prediction
# "Per-step" recomputes every step in the backward pass. How much longer does it take than keeping
# everything: a third, half again, or twice as long? And how much memory does it save at $T = 2$?
# ```

# %%
prior = LatentDiffusionPrior.from_pretrained("digits")
T = 2 if preset == "smoke" else 10
sampling = SamplerConfig(steps=T)
settings = presets.preset("cpu", algorithm="DC", seed=seed, sampler=sampling)
weights = [p for m in prior.modules for p in m.parameters()]
plans = ordered_plans(T)


def gradients(plan, chosen=settings):
    """Of Z and c, in one vector."""
    Z, c, noise = codes(prior, chosen, "cpu")
    images = generate_with_plan(prior, Z, c, noise, chosen.sampler, plan)
    images.square().sum().backward()
    return torch.cat([Z.grad.flatten(), c.grad.flatten()])


def seconds_of(plan, repeats=3):
    """The least processor time, of one thread."""
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(repeats):
        began = time.process_time()
        gradients(plan)
        times.append(time.process_time() - began)
    torch.set_num_threads(threads)
    return min(times)


gradients(plans["one-pass"])  # the first pass also sets things up
rows, found = {}, {}
for name, plan in plans.items():
    with Counter(weights) as count:
        found[name] = gradients(plan)
    said = forecast(prior, settings, plan, matching=False, name=name)
    rows[name] = {
        "predicted MiB": said.peak_bytes / MIB,
        "measured MiB": count.peak / MIB,
        "work": said.flops,
        "seconds": seconds_of(plan),
    }
table = pd.DataFrame(rows).T
for column in ("work", "seconds"):
    table[column] /= table.loc["one-pass", column]
first = found["one-pass"]
differences = {
    n: ((g - first).norm() / first.norm()).item() for n, g in found.items()
}

# %% tags=["hide-cell"]
for gradient in found.values():
    near(gradient, first, rtol=1e-3, atol=1e-5 * first.abs().max().item())
off = (table["predicted MiB"] / table["measured MiB"] - 1).abs()
assert off.max() < 0.2, "every prediction of memory is near"
work = table["work"]
assert work["per-step"] < work["two-pass"]
assert work["chunks"] < work["two-pass"]
memory = table["measured MiB"]
assert memory["chunks"] < 0.3 * memory["two-pass"]
Path(out).mkdir(parents=True, exist_ok=True)
table.to_csv(Path(out) / "plans.csv")


def dominated(table):
    """Plans that another undercuts in one, and equals or undercuts in both."""
    both, found = table[["measured MiB", "seconds"]], []
    for name in table.index:
        ratio = both / both.loc[name]  # 1 % is no difference
        better = (ratio < 1.01).all(axis=1) & (ratio < 0.99).any(axis=1)
        if better.any():
            found.append(name)
    return found


# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Memory over time, a labelled point for each of the seven plans. One-pass is at the upper left: the most memory, the least time. Per-step, with less than half the memory, and chunks, with a twelfth, lie further right and lower. Hollow points are plans for which another is no worse in either; two-pass is one of them. Small crosses, the predicted memory, lie on the points."}}
fig, axis = plot(figsize=(4.6, 3.4))
worse = dominated(table)
for name, row in table.iterrows():
    x, y = row["seconds"], row["measured MiB"]
    hollow = name in worse
    face = "white" if hollow else BLUE
    axis.plot(x, y, "o", ms=9, color=GREY if hollow else BLUE, mfc=face)
    axis.plot(x, row["predicted MiB"], "x", ms=5, color=ORANGE)
    offset = (7, -13) if name in ("half", "decoder") else (7, 5)
    axis.annotate(name, (x, y), offset, textcoords="offset points", fontsize=9)
best = table.drop(worse).sort_values("seconds")
axis.plot(best["seconds"], best["measured MiB"], ":", color=BLUE, lw=1.2)
axis.set(xlabel="time, one-pass = 1", ylabel="peak memory, MiB")
axis.set(ylim=(0, None), xlim=(0.9, 1.12 * table["seconds"].max()))
_ = axis.set_title(f"Seven plans, one gradient (T = {T})")
# %% [markdown]
# *Peak of memory and the processor's time for ten digits, forward and backward. Crosses: the peak
# that the planner predicts before anything is computed. Hollow: another plan is no worse in either.
# The dotted line joins the others.*
#
# ```{admonition} Answer
# :class: dropdown
# The work is half again as much: with frozen weights the backward pass costs about as much as the
# forward one, so one more forward pass adds a half.
# The time, on tensors as small as these, is about twice. At $T = 2$ it saves more than half of the
# memory; the more steps, the more. Never choose a hollow plan. "Two-pass", the paper's, is one for
# certain: it does more work than "per-step" and needs no less memory. "Selective" does hardly more
# multiplications than "one-pass", but normalising again takes time; from $T = 10$ on, "half"
# undercuts it in both, as the [speed page](../book/experiments/speed) shows.
# ```
#
# The same as numbers, with the difference of each plan's gradient from the first one's. (In float64
# they agree to $10^{-10}$, which a test demands.)

# %% tags=["nbval-ignore-output"]
shown = table.round(1)
shown["difference"] = [f"{d:.0e}" for d in differences.values()]
shown.drop(columns="predicted MiB")

# %% [markdown]
# ## Memory against $T$
#
# The claim of section 3.3 in one figure: with checkpoints, memory does not grow with the number of
# steps. The planner counts on tensors without data, so this costs no memory at all.
#
# ```{admonition} Make a prediction
# At which $T$ does "one-pass" need ten times the memory of "per-step"?
# ```

# %%
lengths = (1, 2, 4, 8) if preset == "smoke" else (1, 2, 5, 10, 20)
peaks = {}
for name in ("one-pass", "per-step"):
    line = []
    for n in lengths:
        longer = replace(settings, sampler=SamplerConfig(steps=n))
        said = forecast(prior, longer, plans[name], matching=False)
        line.append(said.peak_bytes / MIB)
    peaks[name] = line

# %% mystnb={"image": {"alt": "Peak memory over the number of steps T. The line of one-pass rises steadily, that of per-step is level."}}
fig, axis = plot()
for (name, values), style in zip(peaks.items(), ("o-", "s--"), strict=True):
    axis.plot(lengths, values, style, label=name)
axis.set(xlabel="steps T", ylabel="peak memory, MiB", ylim=(0, None))
axis.set_xticks(lengths)
axis.set_title("What the number of steps costs")
_ = axis.legend()
# %% tags=["hide-cell"]
grows, flat = (v[-1] / v[0] for v in peaks.values())
assert grows > 3 and flat < 1.1
slope = (peaks["one-pass"][-1] - peaks["one-pass"][0]) / (
    lengths[-1] - lengths[0]
)
ten_times = 1 + (10 * peaks["per-step"][0] - peaks["one-pass"][0]) / slope
print(f"ten times at T = {ten_times:.0f}")

# %% [markdown]
# *Predicted peaks for ten digits.*
#
# ```{admonition} Answer
# :class: dropdown
# Prolong the line: the folded cell does, and comes to about $T = 10$. On this prior that is a
# quarter of a GiB against 26 MiB; on the released one, with a hundred times the activations, it
# decides whether a distillation runs at all.
# ```
#
# ## Will it fit?
#
# `choose` asks the planner for one plan after the other, the fastest first, and takes the first
# that fits into the memory there is. A run with `plan=AUTO` (`--plan auto`) does the same; and
# `python -m ld3m_min plan` prints the table for any preset.

# %%
matching = replace(settings, algorithm="DM", batch_real=8)
for limit in (1000, 80, 15):
    plan = choose(prior, matching, available=limit * MIB)
    print(f"{limit:5d} MiB: {plan.name}")

# %% [markdown]
# ## A trap: frozen weights under autocast
#
# Half precision halves the activations. PyTorch's autocast casts weights to half precision at each
# call, and remembers the copy only for weights that are trained. Ours are frozen: each of the $T$
# calls makes copies of its own, and the backward pass keeps them all. The package casts the weights
# once. Counted on the released prior's size, with 401 million weights of two bytes:

# %%
copies = 400_920_579 * 2 / 2**30
print(f"the U-Net's weights in half precision: {copies:.2f} GiB")
print(f"ten copies of them:                    {10 * copies:.1f} GiB")

# %% [markdown]
# ```{admonition} Make a prediction
# In bfloat16 a number has two to three significant digits. What is the angle between its gradient
# and that of float32, through the whole sampler: 1, 10 or 45 degrees?
# ```

# %% tags=["nbval-ignore-output"]
with Counter(weights) as count:
    low = gradients(Plan(precision="bfloat16"))
cosine = torch.cosine_similarity(low, first, dim=0).clamp(max=1)
degrees = cosine.arccos().rad2deg().item()
memory = count.peak / MIB / table.loc["one-pass", "measured MiB"]
print(f"memory: {memory:.2f} of float32's; angle {degrees:.1f} degrees")

# %% tags=["hide-cell"]
assert degrees < 5 and 0.4 < memory < 0.8

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# Half a degree at $T = 2$. The states, the schedule and the first and last layers stay in float32.
# ```

# %% [markdown]
# ## Move it yourself
#
# Set `sliders = True` in the parameters, and the next cell has a slider for $T$ and one for the
# images of a class. Which plan's memory does not grow with $T$, and which grows with neither?


# %% mystnb={"image": {"alt": "Bars of the forecast memory of seven plans on a logarithmic axis, for ten images and ten steps. One-pass needs most, chunks least."}}
def need(T, per_class):
    """The planner's memory of each plan; nothing is computed."""
    longer = presets.preset(
        "cpu",
        algorithm="DC",
        ipc=per_class,
        sampler=SamplerConfig(steps=T),
    )
    plans = ordered_plans(T)
    bytes_of = [
        forecast(prior, longer, p, matching=False).peak_bytes / MIB
        for p in plans.values()
    ]
    _, axis = plot(figsize=(4.6, 2.6))
    bars = axis.barh(list(plans), bytes_of, color=BLUE)
    axis.bar_label(bars, [f" {b:,.0f}" for b in bytes_of], fontsize=9)
    axis.set(xscale="log", xlabel="MiB", xlim=(1, 40 * max(bytes_of)))
    axis.invert_yaxis()
    axis.set_title(f"T = {T}, {10 * per_class} images")
    plt.show()


viz.with_sliders(need, sliders, T=(10, 2, 5, 20, 40), per_class=(1, 2, 10))
# %% [markdown]
# *Forecast for the digits' generator alone, in float32.*

# %% [markdown]
# ## Exercises
#
# 1. With `PER_STEP`, which part of the generator sets the peak? Use `forecast(...).held_bytes` and
#    a decoder chunk of 1.
# 2. Half of the steps recomputed: predict work and memory from the rows "one-pass" and "per-step",
#    then compare with "half".
# 3. Why does the two-pass plan need chunks to be of any use?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# Almost nothing is held after the forward pass, so the peak is one step's activations, or those of
# the decoded images, whichever is larger. Chunks of one image and of ten give the same peak, so it
# is the U-Net's.
# ```

# %% tags=["hide-cell"]
for chunk in (1, 10):
    plan = replace(PER_STEP, decoder_chunk=chunk)
    said = forecast(prior, settings, plan, matching=False)
    held, peak = said.held_bytes / MIB, said.peak_bytes / MIB
    print(f"decoder chunk {chunk:2d}: held {held:.1f} MiB, peak {peak:.1f} MiB")
    assert held < 1

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# Work is near the mean of the two rows, since half of the steps are done twice. Memory is near half
# of "one-pass" when there are many steps; with two, one step's activations are already half of them
# all, and "half" saves no less than "per-step".
# ```

# %% tags=["hide-cell"]
mean = table.loc[["one-pass", "per-step"], "work"].mean()
print(f"work: mean {mean:.2f}, half {table.loc['half', 'work']:.2f}")
share = (
    table.loc["half", "measured MiB"] / table.loc["one-pass", "measured MiB"]
)
print(f"memory of half: {share:.2f} of one-pass")
assert abs(table.loc["half", "work"] / mean - 1) < 0.1
assert 0.3 < share < 0.6

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# A checkpoint around the whole generator recomputes everything at once in the backward pass, and
# has then the peak of whatever is inside. With chunks only one chunk's graph exists at a time. The
# folded cell gives the two-pass plan chunks of 10 images, 5 and 1.
# ```

# %% tags=["hide-cell"]
sizes = {}
for chunk in (10, 5, 1):
    plan = replace(plans["two-pass"], steps=0, chunk=chunk)
    said = forecast(prior, settings, plan, matching=False)
    sizes[chunk] = said.peak_bytes / MIB
print("peak, MiB:", {n: round(x, 1) for n, x in sizes.items()})
assert sizes[10] > sizes[5] > sizes[1]

# %% [markdown]
# **To take away.** With a residual, equation (7) has only one of the ways from $\Z$ to the image,
# and the gradient of $c$ is a sum over all steps. Recomputing the steps makes memory independent of
# $T$, for half again the work; two passes cost more and give nothing beyond it. The planner counts
# all of this before a run.
#
# **Next:** {doc}`../book/experiments/41_setup` says what a fair comparison needs, and
# {doc}`41_load_data_and_judge` does it.

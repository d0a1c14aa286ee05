# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-losses)=
# # Match gradients, features and trajectories
#
# **You will** compute the three losses of section 2.1 by hand, {term}`DC`, {term}`DM` and
# {term}`MTT`, find that the package's functions return the same numbers, and learn the pixels of
# three digits with each.
#
# **You will learn** what each loss compares, why two of them need second derivatives, what the
# public code's gradient for MTT leaves out, and what siamese augmentation is.
#
# **You need** one CPU core and half a minute. The derivations are in
# {doc}`../book/background/21_dataset_distillation`.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "cpu")  # how long the pixels are learned: smoke, or longer
seed = 0  # of every random draw
out = os.environ.get("LD3M_OUT", "../runs/losses")  # where the measured angles go

# %% [markdown]
# ## A toy that is small enough to check
#
# Three classes of digits, brought to 16 by 16 pixels, and a {term}`ConvNet` of two blocks with four
# channels. All of it in float64, so that "equal" can mean equal to many digits.

# %%
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from ld3m_min import presets
from ld3m_min.augment import DSA
from ld3m_min.data import load_data
from ld3m_min.distillers import (
    DC,
    distribution_matching_loss,
    gradient_matching_distance,
    trajectory_matching_loss,
)
from ld3m_min.distillers.mtt import approximate_trajectory_gradient
from ld3m_min.experiments import figures as viz
from ld3m_min.io.files import write_json
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network, flat_parameters, functional

# %%
data = load_data("digits")


def toy(images):
    """Images in [0, 1] at 32 px -> what the networks take: normalised, 16 px, float64."""
    return F.avg_pool2d(data.normalise(images.double()), 2)


real = [toy(data.train.sample_class(k, 20, seeded(seed, "real", k))) for k in range(3)]
start = torch.cat([toy(data.train.sample_class(k, 1, seeded(seed, "start", k))) for k in range(3)])
labels = torch.arange(3)
network = build_network(
    "ConvNet", classes=3, size=16, depth=2, width=4, generator=seeded(seed, "network")
).double()
parameters = list(network.parameters())
print("real", [tuple(x.shape) for x in real], "synthetic", tuple(start.shape))
print("parameters", sum(p.numel() for p in parameters), "in", len(parameters), "tensors")

# %% [markdown]
# ## DC: match the gradients
#
# {term}`Gradient matching` asks that the classification loss push a network's weights in the same
# direction on synthetic images as on real ones. For the simplest network, logits $Wx$, the gradient
# is short enough to write down: $\tfrac1n \sum_i (p_i - e_{y_i})\, x_i^\top$, with $p_i$ the
# softmax and $e_y$ the unit vector of the class.

# %%
W = 0.1 * torch.randn(3, 3 * 16 * 16, generator=seeded(seed, "W"), dtype=torch.float64)


def softmax_gradient(W, x, y):
    x = x.flatten(1)
    p = (x @ W.T).softmax(1)
    return (p - F.one_hot(y, 3)).T @ x / len(x)


x_real, y_real = torch.cat(real), torch.arange(3).repeat_interleave(20)
leaf = W.clone().requires_grad_()
auto = torch.autograd.grad(F.cross_entropy(x_real.flatten(1) @ leaf.T, y_real), leaf)[0]
print("torch.allclose ->", torch.allclose(softmax_gradient(W, x_real, y_real), auto))

# %% [markdown]
# The distance between the two gradients is one minus their cosine, taken for each output of a
# layer, that is for each row of $W$, and summed. The $10^{-6}$ is the public code's guard against
# rows of zeros.

# %%
a, b = softmax_gradient(W, start, labels), softmax_gradient(W, x_real, y_real)
by_hand = sum(1 - (a[i] @ b[i]) / (a[i].norm() * b[i].norm() + 1e-6) for i in range(3))
package = gradient_matching_distance([a], [b])
print("torch.allclose ->", torch.allclose(by_hand, package), f"{package:.3g}")
assert torch.allclose(by_hand, package)

# %% [markdown]
# Two properties follow from the cosine. The lengths of the gradients don't matter. And as biases
# and scales of normalisation layers have no rows, the public code leaves them out.

# %%
bias = [torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
print(
    "blind to length:", torch.allclose(gradient_matching_distance([7 * a], [b]), package, rtol=1e-4)
)
print(
    "blind to biases:", torch.equal(gradient_matching_distance([a, bias[0]], [b, bias[1]]), package)
)
print(
    "unlike mse:",
    not torch.allclose(*(gradient_matching_distance([s * a], [b], "mse") for s in (1, 7))),
)

# %% [markdown]
# To improve the images we need the derivative of that distance with respect to pixels. The distance
# depends on a gradient, so this is a second derivative: `create_graph=True`. A finite difference
# confirms it on the ConvNet.


# %%
def class_gradient(x, k, **kwargs):
    return torch.autograd.grad(
        F.cross_entropy(network(x), torch.full((len(x),), k)), parameters, **kwargs
    )


targets = [class_gradient(real[k], k) for k in range(3)]  # the real side is a constant


def dc_loss(x):
    """Sum over the classes, each with its own pair of gradients."""
    return sum(
        gradient_matching_distance(class_gradient(x[[k]], k, create_graph=True), targets[k])
        for k in range(3)
    )


x = start.clone().requires_grad_()
direction = torch.randn(start.shape, generator=seeded(seed, "direction"), dtype=torch.float64)
slope = (torch.autograd.grad(dc_loss(x), x)[0] * direction).sum()
h = 1e-6
difference = (dc_loss((x + h * direction).detach()) - dc_loss((x - h * direction).detach())) / (
    2 * h
)
print(f"autograd / finite difference = {slope / difference:.3f}")
assert torch.isclose(slope, difference, rtol=1e-4)

# %% [markdown]
# In the package a `Distiller` adds what is random: a new network and a new batch of real images at
# every iteration, one draw of augmentation for each class. {py:class}`~ld3m_min.distillers.dc.DC`
# fills `images.grad` and returns the loss; with its own network and pairs, our sum gives the same.

# %%
cfg = presets.preset("smoke", algorithm="DC", space="pixel", seed=seed)
distiller = DC(cfg, data)
images = torch.cat(
    [data.train.sample_class(k, 1, seeded(seed, "start", k)) for k in range(10)]
).requires_grad_()
loss = distiller.step(images, torch.arange(10), iteration=0)
print(
    "loss of one iteration, shape",
    tuple(loss.shape),
    "| gradient of the images",
    tuple(images.grad.shape),
)
assert images.grad.abs().flatten(1).sum(1).min() > 0

# %%
drawn, total = distiller.network(0), 0
for k in range(10):
    grads = []
    for batch in distiller.pair(images[[k]].detach(), k, 0):
        ce = F.cross_entropy(drawn(batch), torch.full((len(batch),), k))
        grads.append(torch.autograd.grad(ce, list(drawn.parameters())))
    total += gradient_matching_distance(grads[1], grads[0])
print("torch.allclose ->", torch.allclose(total, loss))
assert torch.allclose(total, loss)

# %% [markdown]
# ## DM: match the features
#
# {term}`Distribution matching` needs no labels in its loss and no second derivative: the mean
# embedding of a class's synthetic images shall equal that of its real ones. By hand, for one class:

# %%
k = 2
# two synthetic images
pair = torch.cat([start[[k]], toy(data.train.sample_class(k, 1, seeded(seed, "second")))])
mean_real = sum(network.embed(x[None])[0] for x in real[k]) / 20
mean_synthetic = (network.embed(pair[:1])[0] + network.embed(pair[1:])[0]) / 2
by_hand = sum((r - s) ** 2 for r, s in zip(mean_real, mean_synthetic, strict=True))
package = distribution_matching_loss(network, real[k], pair)
print("embedding", tuple(mean_real.shape), "| torch.allclose ->", torch.allclose(by_hand, package))
assert torch.allclose(by_hand, package)

# %% [markdown]
# What does it ask of a single image? If the embedding were linear, $x \mapsto Ax$, the embedding of
# the mean image would be the mean of the embeddings, and the loss would be zero at the mean image
# of the class. The ConvNet isn't linear: for it the mean image is no minimum, and gradient descent
# finds better ones.


# %%
class Linear:
    A = torch.randn(32, 3 * 16 * 16, generator=seeded(seed, "A"), dtype=torch.float64)

    def embed(self, x):
        return x.flatten(1) @ self.A.T


mean_image = real[k].mean(0, keepdim=True)
linear = [distribution_matching_loss(Linear(), real[k], x).item() for x in (mean_image, start[[k]])]
convnet = [distribution_matching_loss(network, real[k], x).item() for x in (mean_image, start[[k]])]
print("linear: mean image is a zero:", linear[0] < 1e-20 * linear[1])
print("ConvNet: mean image is a zero:", convnet[0] < 1e-6 * convnet[1])

# %% [markdown]
# ## MTT: match the trajectories
#
# {term}`Trajectory matching` starts with an expert: a network trained on the real images, whose
# parameters are kept along the way. Here: plain gradient descent, all 60 images in each step.


# %%
def descend(theta, x, y, lr, steps):
    """Parameters after `steps` of plain SGD; differentiable in x and lr, nothing is detached."""
    for _ in range(steps):
        theta = theta if theta.requires_grad else theta.requires_grad_()
        g = torch.autograd.grad(
            F.cross_entropy(functional(network, theta)(x), y), theta, create_graph=True
        )[0]
        theta = theta - lr * g
    return theta


expert = [flat_parameters(network)]
for _ in range(6):
    expert.append(descend(expert[-1].clone(), x_real, y_real, 0.1, 5).detach())
correct = [
    (functional(network, t)(x_real).argmax(1) == y_real).double().mean().item() for t in expert
]
print(
    "snapshots",
    len(expert),
    "of",
    tuple(expert[0].shape),
    "| expert learns:",
    correct[0] < 0.5 < 0.9 < correct[-1],
)

# %% [markdown]
# The student starts at a snapshot $\theta_0$, takes $N$ steps on the synthetic images alone, and
# should land at a later snapshot $\theta^*$. The loss is what remains of the way, squared: 1 for a
# student that never moved, 0 on arrival.

# %%
theta_0, theta_target = expert[1], expert[4]


def unrolled_loss(x, lr, steps):
    """MTT with plain autograd through all steps."""
    theta = descend(theta_0.clone(), x, labels, lr, steps)
    return (theta - theta_target).square().sum() / (theta_0 - theta_target).square().sum()


def exact(x, lr, steps):
    return trajectory_matching_loss(network, theta_0, theta_target, x, labels, lr, steps)


def gradients(loss, steps, rate=0.02):
    x, lr = (
        start.clone().requires_grad_(),
        torch.tensor(rate, dtype=torch.float64, requires_grad=True),
    )
    value = loss(x, lr, steps)
    return value.detach(), *torch.autograd.grad(value, (x, lr))


pairs = zip(gradients(unrolled_loss, 10), gradients(exact, 10), strict=True)
print("loss, d/dimages, d/dlr: torch.allclose ->", [torch.allclose(u, v) for u, v in pairs])
print("no rate, no way:", exact(start, torch.zeros(()).double(), 10).item())

# %% [markdown]
# (nb-losses-adjoint)=
# ### The gradient, backwards by hand
#
# Let $g_i$ be the inner gradient of step $i$ and $v_N = \partial\mathcal{L}/\partial\theta_N$.
# Going back, each step adds $-\eta\,(\partial g_i/\partial x)^\top v_{i+1}$ to the gradient of the
# images ($\eta$: the student's learning rate), and turns $v_{i+1}$ into
# $v_i = v_{i+1} - \eta\,H_i v_{i+1}$ with the Hessian $H_i$ of the inner loss. One call of
# `autograd.grad` gives both products. The public code of GLaD and LD3M, after {term}`TESLA`, leaves
# the second out: its $v$ stays what it was at the end.


# %%
def backwards(x, rate, steps, hessian):
    thetas = [theta_0]
    for _ in range(steps):
        thetas.append(descend(thetas[-1].clone(), x, labels, rate, 1).detach())
    v = 2 * (thetas[-1] - theta_target) / (theta_0 - theta_target).square().sum()
    grad = torch.zeros_like(x)
    for theta in reversed(thetas[:-1]):
        leaf, theta = x.clone().requires_grad_(), theta.requires_grad_()
        inner = F.cross_entropy(functional(network, theta)(leaf), labels)
        g = torch.autograd.grad(inner, theta, create_graph=True)[0]
        to_x, to_theta = torch.autograd.grad(g @ v, (leaf, theta))
        grad -= rate * to_x
        if hessian:
            v = v - rate * to_theta
    return grad


print(
    "with the Hessian, the exact gradient:",
    torch.allclose(backwards(start, 0.02, 10, True), gradients(exact, 10)[1]),
)


# %%
def approximate(steps, rate=0.02):
    x, lr = (
        start.clone().requires_grad_(),
        torch.tensor(rate, dtype=torch.float64, requires_grad=True),
    )
    approximate_trajectory_gradient(network, theta_0, theta_target, x, labels, lr, steps)
    return x.grad


print(
    "without it, the public code's:",
    torch.allclose(backwards(start, 0.02, 10, False), approximate(10)),
)
print("one step, equal:", torch.allclose(approximate(1), gradients(exact, 1)[1]))
print("ten steps, equal:", torch.allclose(approximate(10), gradients(exact, 10)[1]))

# %% [markdown]
# How far off is it? The angle between the two gradients, and the ratio of their lengths,
# approximate over exact, against the number of inner steps, for three learning rates. Gradient
# descent is stable where the rate times the largest eigenvalue of the Hessian is below 2: the first
# two rates are far below it, the third is beyond.

# %%
counts, rates = (1, 2, 5, 10, 20, 40), (0.002, 0.01, 0.1)
inner = torch.func.hessian(lambda t: F.cross_entropy(functional(network, t)(start), labels))(
    theta_0.detach()
)
top = torch.linalg.eigvalsh(inner)[-1].item()
print("rate x curvature:", {rate: float(f"{rate * top:.3g}") for rate in rates})

# %%
angle, ratio = {}, {}
for rate in rates:
    for n in counts:
        e, f = gradients(exact, n, rate)[1].flatten(), approximate(n, rate).flatten()
        cosine = (e @ f / (e.norm() * f.norm())).clamp(max=1)
        angle[rate, n], ratio[rate, n] = (
            cosine.arccos().rad2deg().item(),
            (f.norm() / e.norm()).item(),
        )
    print(f"rate {rate}: length ratio", " ".join(f"{ratio[rate, n]:.3g}" for n in counts))
assert all(angle[rate, 1] < 1e-4 for rate in rates)
assert all(angle[r, n] < angle[r, m] for r in rates[:2] for n, m in pairwise(counts))
assert angle[0.002, 20] < 10 < angle[0.01, 20] and angle[0.01, 40] < 45 and angle[0.1, 20] > 60

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for rate, style in zip(rates, ("o-", "s--", "^:"), strict=True):
    for axis, values in zip(axes, (angle, ratio), strict=True):
        axis.plot(
            counts, [values[rate, n] for n in counts], style, ms=4, lw=1.5, label=f"rate {rate}"
        )
for axis, label in zip(axes, ("angle, degrees", "ratio of lengths"), strict=True):
    axis.set(xscale="log", xlabel="inner steps", ylabel=label)
    axis.set_xticks(counts, counts)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
axes[0].legend(frameon=False)
figure.tight_layout()
# %% [markdown]
# ```{admonition} What the figure says
# :class: ours
# For one inner step the approximation is exact. From there the angle opens with the number of steps
# and with the rate: at the rate 0.01 and the 20 steps of the paper's supplement it is more than ten
# degrees on this toy. It still points downhill there. Where the inner training is unstable the two
# gradients are nearly at right angles. The package takes the exact one;
# `MTTConfig(gradient="approximate")` is there to compare.
# ```

# %%
keys = [
    {"rate": r, "steps": n, "angle": round(angle[r, n], 2), "length": round(ratio[r, n], 3)}
    for r, n in angle
]
Path(out).mkdir(parents=True, exist_ok=True)
write_json(Path(out) / "mtt_gradients.json", {"preset": preset, "seed": seed, "rows": keys})
print("rows kept:", len(keys))

# %% [markdown]
# ## Siamese augmentation
#
# Matching sees more of a few images if they are augmented, but only if the real and the synthetic
# side are changed alike: otherwise the loss would measure the difference of the augmentations. So
# one {term}`siamese
# <siamese augmentation>`
# draw of {term}`DSA` serves both. Each column below is one draw of one family. The third row has a
# draw of its own.

# %%
families = ("color", "crop", "cutout", "flip", "scale", "rotate")
one = data.normalise(torch.cat([data.train.sample_class(4, 2, seeded(seed, "siamese"))]))
rows = [[x] for x in (one[:1], one[1:], one[1:])]
for name in families:
    dsa = DSA(name)
    draws = [dsa.draw(1, data.size, seeded(seed, "draw", name, i), siamese=True) for i in (0, 1)]
    for row, image, draw in zip(
        rows, (one[:1], one[1:], one[1:]), (draws[0], draws[0], draws[1]), strict=True
    ):
        row.append(dsa.apply(image, draw))
shown = torch.cat([torch.cat(row) for row in rows]) * torch.tensor(data.std).view(1, 3, 1, 1)
shown = shown + torch.tensor(data.mean).view(1, 3, 1, 1)
fig = viz.image_grid(
    shown,
    columns=7,
    titles=["plain", *families],
    row_labels=["real", "synthetic,\nsame draw", "synthetic,\nown draw"],
)
# %%
dsa, twins = DSA(), one[:1].expand(4, -1, -1, -1)
siamese, own = (dsa(twins, seeded(seed, "twins"), siamese=s) for s in (True, False))
print("siamese: four copies stay equal:", all(torch.equal(siamese[0], x) for x in siamese[1:]))
print("not siamese: they part:", not torch.equal(own[0], own[1]))

leaf = one[:1].clone().requires_grad_()
hole = DSA("cutout").draw(1, data.size, seeded(seed, "hole"))
DSA("cutout").apply(leaf, hole).sum().backward()
print("no gradient in the hole:", 0 < int((leaf.grad == 0).sum()) <= 3 * (data.size // 2) ** 2)

# %% [markdown]
# ## Learn the pixels
#
# Now each loss moves the same three digits, with Adam, for a few dozen iterations. A real
# distillation draws a new network, or a new expert, and new real images in every iteration; here
# all stay fixed, so that the loss is one function and has to fall.

# %%
losses = {
    "DC": dc_loss,
    "DM": lambda x: sum(distribution_matching_loss(network, real[k], x[[k]]) for k in range(3)),
    "MTT": lambda x: exact(x, torch.tensor(0.02).double(), 10),
}
iterations = 20 if preset == "smoke" else 60
history, learned = {}, {}
for name, function in losses.items():
    x = start.clone().requires_grad_()
    adam, history[name] = torch.optim.Adam([x], lr=0.03), []
    for _ in range(iterations):
        value = function(x)
        x.grad = torch.autograd.grad(value, x)[0]
        adam.step()
        history[name].append(value.item())
    learned[name] = x.detach()
print({name: values[-1] < 0.9 * values[0] for name, values in history.items()})
assert all(values[-1] < 0.9 * values[0] for values in history.values())

# %%
fig = viz.curve(
    {name: [v / values[0] for v in values] for name, values in history.items()},
    "loss / loss at the start",
)
# %%
grid = torch.stack([start, *learned.values()], 1).flatten(0, 1).float() * torch.tensor(
    data.std
).view(1, 3, 1, 1)
grid = grid + torch.tensor(data.mean).view(1, 3, 1, 1)
fig = viz.image_grid(
    grid, columns=4, titles=["start", *learned], row_labels=["0", "1", "2"], scale=1.2
)

# %% [markdown]
# The strokes stay and the ground fills with faint patterns, in colours, although the data are grey:
# nothing in the losses asks for images that look like digits. That is the overfitting to one
# network that a generative {term}`prior` is meant to prevent.
#
# ## Exercises
#
# 1. Why is the approximate gradient of MTT exact for a single inner step?
# 2. Replace `network` in the DM loss by `Linear()` and learn the pixels. Where do they go?
# 3. DC compares the gradients class by class. Write the loss that compares the gradient of all
#    classes at once. What can it no longer see?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. With $N = 1$ the only $v$ is $v_1 = \partial\mathcal{L}/\partial\theta_1$, which both use; the
#    Hessian would be needed for $v_0$, the gradient of a constant.
# 2. To an image with the same 32 projections as the mean of its class, but not to that mean: the
#    other $768 - 32$ directions get no gradient. Plain SGD leaves them as they were; Adam, which
#    rescales each pixel, drifts in them.
# 3. The sum of the classes' gradients: an error of one class can be made up by another. Try
#    `gradient_matching_distance` with `F.cross_entropy(network(start), labels)` against all 60 real
#    images.
# ```
#
# **Next:** {doc}`22_walk_a_latent_diffusion_model`, the prior that keeps the images natural.

"""The three losses on two numbers a point: real points, networks, an expert; and a reference.

The page computes the losses itself. What it computes is compared with the functions here, which
call the package's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from explorers import output
from ld3m_min.distillers import gradient_matching_distance
from ld3m_min.io.seeds import seeded

NETWORKS = 4  # that DC and DM take the mean over
FEATURES = 12  # of DM's networks
EXPERT_STEPS, EXPERT_RATE = 40, 0.5
STUDENT = {"steps": 5, "rate": 1.0}


def numbers() -> dict[str, Any]:
    """All that is drawn, rounded, so that the page and the reference have the same."""

    def normal(*shape: int, purpose: object) -> Tensor:
        drawn = torch.randn(shape, generator=seeded(output.SEED, "toy", purpose))
        return (drawn.double() * 1e4).round() / 1e4

    # class 0 has two clumps, so that its mean lies where none of its points does
    clumps = torch.tensor([[1.7, 0.3], [0.3, 1.7]], dtype=torch.float64).repeat_interleave(8, 0)
    first = clumps + 0.22 * normal(16, 2, purpose="class 0")
    second = torch.tensor([-0.9, -0.7]) + 0.35 * normal(16, 2, purpose="class 1")
    real = torch.stack([first, second])
    start = 0.5 * normal(2, 2, purpose="expert")
    values = {
        "real": real,
        "weights": 0.7 * normal(NETWORKS, 2, 2, purpose="weights"),
        "features": normal(NETWORKS, FEATURES, 2, purpose="features"),
        "biases": 0.7 * normal(NETWORKS, FEATURES, purpose="biases"),
        "start": start,
        "target": expert(start, real),
        "points": torch.tensor([[1.0, -0.4], [-0.2, -1.2]], dtype=torch.float64),
    }
    rounded = {k: [*((v * 1e4).round() / 1e4).tolist()] for k, v in values.items()}
    return rounded | {"student": STUDENT}


def gradient(W: Tensor, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """Of the cross-entropy of logits W x in W."""
    leaf = W if W.requires_grad else W.detach().requires_grad_()
    found: Tensor = torch.autograd.grad(F.cross_entropy(x @ leaf.T, y), leaf, **options)[0]
    return found


def expert(W: Tensor, real: Tensor) -> Tensor:
    """Where gradient descent on all real points leads."""
    y = torch.arange(2).repeat_interleave(real.shape[1])
    for _ in range(EXPERT_STEPS):
        W = W - EXPERT_RATE * gradient(W, real.flatten(0, 1), y)
    return W.detach()


def reference(values: dict[str, Any], points: Tensor, steps: int, rate: float) -> dict[str, Tensor]:
    """The three losses of two points, one a class, differentiable in them."""
    drawn = ("real", "weights", "features", "biases", "start", "target")
    t = {k: torch.tensor(values[k], dtype=torch.float64) for k in drawn}
    own = torch.arange(2)
    dc = dm = points.new_zeros(())
    for W, A, b in zip(t["weights"], t["features"], t["biases"], strict=True):
        for k in range(2):
            real, point = t["real"][k], points[k : k + 1]
            target = gradient(W, real, torch.full((len(real),), k))
            mine = gradient(W, point, own[k : k + 1], create_graph=True)
            dc = dc + gradient_matching_distance([mine], [target]) / NETWORKS
            mean = F.relu(real @ A.T + b).mean(0)
            dm = dm + (mean - F.relu(point @ A.T + b).mean(0)).square().sum() / NETWORKS
    W = t["start"].requires_grad_()
    for _ in range(steps):
        W = W - rate * gradient(W, points, own, create_graph=True)
    mtt = (W - t["target"]).square().sum() / (t["start"] - t["target"]).square().sum()
    return {"DC": dc, "DM": dm, "MTT": mtt}


def losses() -> None:
    """The numbers, and three surfaces over the place of the first point."""
    import matplotlib.pyplot as plt

    values = numbers()
    output.write_data("losses", values)
    axis_values = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
    points = torch.tensor(values["points"], dtype=torch.float64)
    surfaces: dict[str, list[float]] = {"DC": [], "DM": [], "MTT": []}
    for y in axis_values:
        for x in axis_values:
            at = torch.stack([torch.stack([x, y]), points[1]])
            for name, loss in reference(values, at, **STUDENT).items():
                surfaces[name].append(loss.item())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    for axis, (name, surface) in zip(axes, surfaces.items(), strict=True):
        levels = torch.tensor(surface).view(41, 41).sqrt()
        axis.contourf(axis_values, axis_values, levels, 16, cmap="Blues_r")
        for points_of, mark in zip(values["real"], ("o", "s"), strict=True):
            axis.plot(*zip(*points_of, strict=True), mark, ms=3, color="#333", mfc="none")
        axis.set(title=name, aspect="equal")
    figure.tight_layout()
    output.write_still("losses", figure)

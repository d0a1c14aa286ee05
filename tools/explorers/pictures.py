"""Pictures of the digits' prior: the residual, how much of Z survives, and Z of one with c of
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from explorers import output
from ld3m_min.data import load_data
from ld3m_min.guidance import from_the_middle
from ld3m_min.residual import DECAYS, NO_RESIDUAL, PAPER_RESIDUAL, PUBLIC_RESIDUAL, Residual
from ld3m_min.sampler import SamplerConfig, denoise, generate
from ld3m_min.spaces.build import draw_initial_images

STEPS = (5, 10, 20)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
GUIDANCE = 3.0


def residuals() -> list[Residual]:
    """Every residual that is shown; the digits' autoencoder has no codebook, so that quantised
    codes are the clean ones.
    """
    mixed = [
        Residual(into, source, decay)
        for into in ("mean", "x0", "noise")
        for source in ("noised", "clean")
        for decay in DECAYS
        if decay != "none"
    ]
    return [NO_RESIDUAL, *mixed]


def key(residual: Residual, steps: int) -> str:
    """The name under which the page looks a picture up."""
    if residual.into == "none":
        return f"none/{steps}"
    return f"{residual.into}/{residual.source}/{residual.decay}/{steps}"


def measured(at: Any, residual: Residual, steps: int) -> tuple[Tensor, list[float]]:
    """The ten images, and the norms of dL/dZ and dL/dc for DM's dL/dS of norm 1."""
    Z, c = at.Z.detach().requires_grad_(), at.c.detach().requires_grad_()
    config = SamplerConfig(steps=steps, guidance_scale=GUIDANCE, residual=residual)
    images = generate(at.prior, Z, c, at.noise, config)
    grads = torch.autograd.grad(images, (Z, c), at.cotangent, allow_unused=True)
    norms = [0.0 if g is None else g.double().norm().item() for g in grads]
    return images.detach(), norms


def residual(steps: tuple[int, ...] = STEPS) -> None:
    """Images and norms for each residual and T, and the real images' own decodings above."""
    at = output.digits_start()
    with torch.no_grad():
        first = at.prior.decode(at.Z)
    rows, norms, index = [first], {}, {}
    kept = {}
    for T in steps:
        for value in residuals():
            images, found = measured(at, value, T)
            index[key(value, T)] = len(rows)
            norms[key(value, T)] = output.significant(found)
            rows.append(images)
            kept[value, T] = images
            print(key(value, T), norms[key(value, T)], flush=True)
    output.write_sprite("residual", output.sprite(rows))
    values = {"steps": list(steps), "row": index, "norm": norms, "guidance": GUIDANCE, "eta": 0}
    output.write_data("residual", values)
    T = steps[min(1, len(steps) - 1)]
    shown = [
        ("decoded Z", first),
        ("no residual", kept[NO_RESIDUAL, T]),
        ("into the mean,\nof $z_T$", kept[PAPER_RESIDUAL, T]),
        ("into $x_0$,\nof $z_T$", kept[Residual("x0", "noised"), T]),
        ("into $x_0$,\nof Z", kept[Residual("x0", "clean"), T]),
        ("into $x_0$, of Z,\nconstant", kept[Residual("x0", "clean", "constant"), T]),
    ]
    output.write_still("residual", output.strips(shown))


@dataclass(frozen=True)
class Scaled(Residual):
    """The public code's residual, times a number."""

    factor: float = 1.0

    def weight(self, k: int, n: int) -> float:
        """As :class:`Residual`, times the factor."""
        return self.factor * super().weight(k, n)


def survivors(
    at: Any, weights: tuple[float, ...], shares: tuple[float, ...], steps: tuple[int, ...]
) -> Iterator[tuple[str, Tensor]]:
    """The images for each weight of the residual, share of steps that the prior takes, and T."""
    for T in steps:
        for w in weights:
            scaled = Scaled("x0", "clean", "linear", factor=w)
            config = SamplerConfig(steps=T, guidance_scale=GUIDANCE, residual=scaled)
            for share in shares:
                late = from_the_middle(
                    at.prior, at.noise, replace(config, residual=NO_RESIDUAL), share
                )
                with torch.no_grad():
                    z = denoise(at.prior, at.Z, at.c, at.noise, config, apply=late)
                    yield f"{w:g}/{share:g}/{T}", at.prior.decode(z)


def relative_distance() -> Callable[[Tensor, Tensor], list[float]]:
    """Root mean square difference of two images, over that of two real images of a class."""
    two, _ = draw_initial_images(load_data("digits"), 2, output.SEED)
    first, second = two.unflatten(0, (10, 2)).unbind(1)
    unit = (first - second).square().mean().sqrt()

    def distance(a: Tensor, b: Tensor) -> list[float]:
        return ((a - b).square().flatten(1).mean(1).sqrt() / unit).tolist()

    return distance


def survive() -> None:
    """Images and their distances to the decoded Z."""
    import matplotlib.pyplot as plt

    at, distance = output.digits_start(), relative_distance()
    with torch.no_grad():
        first = at.prior.decode(at.Z)
    rows, index, distances = [first], {}, {}
    for name, images in survivors(at, WEIGHTS, SHARES, STEPS):
        index[name] = len(rows)
        distances[name] = output.significant(distance(images, first), 3)
        rows.append(images)
    output.write_sprite("survive", output.sprite(rows))
    values = {
        "weights": list(WEIGHTS),
        "shares": list(SHARES),
        "steps": list(STEPS),
        "row": index,
        "distance": distances,
        "guidance": GUIDANCE,
    }
    output.write_data("survive", values)
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for w, marker in zip(WEIGHTS, "osD^v", strict=True):
        line = [sum(distances[f"{w:g}/{s:g}/10"]) / 10 for s in SHARES]
        axis.plot(SHARES, line, marker=marker, label=f"{w:g}")
    axis.set(xlabel="share of the ten steps that the prior takes", ylabel="distance to decoded Z")
    axis.set_ylim(0, 1.3)
    axis.grid(alpha=0.3)
    axis.legend(title="weight of Z at the start", ncols=5, frameon=False, fontsize=8)
    output.write_still("survive", figure)


GRID = {"none": NO_RESIDUAL, "paper": PAPER_RESIDUAL, "code": PUBLIC_RESIDUAL}


def classifier() -> Callable[[Tensor], list[int]]:
    """What a support vector machine on the pixels of real training images takes images for."""
    from sklearn.svm import SVC

    data = load_data("digits")

    def rows(x: Tensor) -> Any:
        return torch.nn.functional.avg_pool2d(x, 2).flatten(1).numpy()

    fitted = SVC(C=10.0).fit(rows(data.train.float()), data.train.labels.numpy())
    return lambda x: [int(k) for k in fitted.predict(rows(x))]


def crossed(at: Any, residual: Residual, z: int) -> Tensor:
    """Z and noise of digit z with each of the ten c."""
    config = SamplerConfig(steps=10, guidance_scale=GUIDANCE, residual=residual)
    Z, noise = (x[z : z + 1].expand_as(x) for x in (at.Z, at.noise))
    with torch.no_grad():
        return generate(at.prior, Z, at.c, noise, config)


def grid() -> None:
    """Z of one digit with c of another, three samplers; and what a classifier reads."""
    at, read = output.digits_start(), classifier()
    with torch.no_grad():
        first = at.prior.decode(at.Z)
    rows, answers = [first], {}
    for name, value in GRID.items():
        made = [crossed(at, value, z) for z in range(10)]
        rows += made
        answers[name] = [read(images) for images in made]
    output.write_sprite("grid", output.sprite(rows))
    values = {"samplers": list(GRID), "read": answers, "T": 10, "guidance": GUIDANCE, "eta": 0}
    output.write_data("grid", values)
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
    titles = ("no residual", "into the mean, of $z_T$", "into $x_0$, of Z")
    for i, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        axis.imshow(output.sprite(rows[1 + 10 * i : 11 + 10 * i]), cmap="gray", vmin=0, vmax=255)
        ticks = [16 + 32 * k for k in range(10)]
        axis.set_xticks(ticks, range(10))
        axis.set_yticks(ticks, range(10))
        axis.set(title=title, xlabel="c of", ylabel="Z of")
    figure.tight_layout()
    output.write_still("grid", figure)

"""Norms of the gradients of Z and c over the time steps (sections 3.1, 4.2 and 6).

The paper brings z_T into every step because the gradient of Z vanishes on its way through them, and
asks in section 6 for better ways to do so. Each way is a :class:`~ld3m_min.residual.Residual`. They
are compared at an equal loss: the loss's gradient at the images, dL/dS, is one and the same for all
of them. It is DM's at the real images that a distillation starts from, in its first iteration, and
is scaled to norm 1. What is measured is the norm of what the generator makes of it (equations 7 and
8), so a norm is a gain, whatever the scale of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import linregress
from torch import Tensor

from ld3m_min.backprop import ONE_PASS
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.distillers import DISTILLERS
from ld3m_min.errors import InputError
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.progress import bar
from ld3m_min.prepare import prepare
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.residual import DECAYS, INTO, NO_RESIDUAL, PAPER_RESIDUAL, Residual
from ld3m_min.sampler import Prior, SamplerConfig, generate
from ld3m_min.spaces.build import draw_initial_images

STEPS = (5, 10, 20, 40, 100)  # each divides 1,000, so that there are exactly so many
# what each route mixes in where only the decay is varied: the paper's, the public code's, and ours
SOURCE_OF = {"mean": "noised", "x0": "clean", "noise": "clean"}


@dataclass(frozen=True)
class Start:
    """What all samplers of one seed are measured at.

    Attributes:
        prior: the generator.
        Z: latent codes to start from.
        c: conditioning codes to start from.
        noise: of the forward process.
        cotangent: dL/dS, of norm 1.
    """

    prior: Prior
    Z: Float[Tensor, "B c h w"]
    c: Float[Tensor, "B L D"]
    noise: Float[Tensor, "B c h w"]
    cotangent: Float[Tensor, "B 3 H W"]


@dataclass(frozen=True)
class Norms:
    """Norms of gradients, over all images of the set.

    Attributes:
        Z: of dL/dZ.
        c: of dL/dc.
    """

    Z: float
    c: float


def routes() -> list[Residual]:
    """The ways to bring the initial state in that are compared, the paper's first.

    Each route with both sources under the linear decay, each decay with the route's own source, and
    none. Quantised codes are left out: without a codebook they are the clean ones.
    """
    own = [Residual(into, SOURCE_OF[into]) for into in INTO if into != "none"]
    sources = [replace(r, source=source) for r in own for source in ("noised", "clean")]
    decays = [replace(r, decay=decay) for r in own for decay in DECAYS if decay != "none"]
    return list(dict.fromkeys([*own, NO_RESIDUAL, *sources, *decays]))


def start(config: DistilConfig, data: DataSplits, prior: LatentDiffusionPrior) -> Start:
    """The codes that a distillation starts from, and DM's gradient at its initial images.

    Args:
        config: says the seed, the images per class, and the network of DM.
        data: its training split is used.
        prior: class-conditional.

    Raises:
        InputError: the prior does not fit the data, or is unconditional.
    """
    config = replace(config, algorithm="DM", space="ld3m", iterations=0, plan=ONE_PASS)
    setup = prepare(config, data, prior, device=prior.device, progress=False)
    assert isinstance(setup.prior, LatentDiffusionPrior), "the space ld3m has one"
    images, _ = draw_initial_images(data, config.ipc, config.seed)
    images = images.to(prior.device).requires_grad_()
    DISTILLERS["DM"](config, setup.data, setup.labels.device).step(images, setup.labels, 0)
    assert images.grad is not None, "the step leaves one"
    state, cotangent = setup.space.state(), images.grad / images.grad.norm()
    c = setup.prior.class_conditioning(setup.labels)
    return Start(setup.prior, state["Z"], c, state["noise"], cotangent)


def norms(at: Start, sampler: SamplerConfig) -> Norms:
    """Bring dL/dS back to the codes through one sampler.

    Args:
        at: where it is measured.
        sampler: its settings.
    """
    Z, c = at.Z.detach().requires_grad_(), at.c.detach().requires_grad_()
    images = generate(at.prior, Z, c, at.noise, sampler)
    # equations (7) and (8)
    grads = torch.autograd.grad(images, (Z, c), at.cotangent, allow_unused=True)
    found = [0.0 if g is None else g.double().norm().item() for g in grads]
    return Norms(*found)


def measure(
    file: str | Path,
    config: DistilConfig,
    data: DataSplits,
    prior: LatentDiffusionPrior,
    *,
    residuals: Sequence[Residual] | None = None,
    steps: Iterable[int] = STEPS,
    seeds: Iterable[int] = range(3),
    progress: bool = True,
) -> dict[str, Any]:
    """Measure what a record lacks; it is written after each number, so a stopped call goes on.

    Args:
        file: the record; it need not exist.
        config: of the distillation whose start is measured.
        data: its training split is used.
        prior: class-conditional.
        residuals: that are compared; None takes :func:`routes`.
        steps: values of T.
        seeds: of images, noise and DM's draws; all of one seed before the next.
        progress: show a bar.

    Returns:
        The record. Its "points" have into, source, decay, T, seed, grad_Z and grad_c.

    Raises:
        InputError: the file is a record of another configuration, prior or data set.
    """
    residuals, Ts = routes() if residuals is None else residuals, list(steps)
    key = digest([asdict(config), prior.digest, data.train.digest])
    head: dict[str, Any] = {
        "schema": 1,
        "what": "norms of dL/dZ and dL/dc for DM's dL/dS of norm 1 at the initial images",
        "key": key,
        "config": asdict(config),
        "data": data.name,
        "prior": {"source": prior.source, "digest": prior.digest},
        "environment": environment(prior.device),
    }
    record = head | {"points": _points(Path(file), key) if Path(file).exists() else []}
    done = {_place(p) for p in record["points"]}
    for seed in seeds:
        asked = [
            point
            for residual in residuals
            for T in Ts
            if _place(point := asdict(residual) | {"T": T, "seed": seed}) not in done
        ]
        if not asked:
            continue
        at = start(replace(config, seed=seed), data, prior)
        for point in bar(asked, desc=f"gradient norms, seed {seed}", show=progress):
            residual = Residual(point["into"], point["source"], point["decay"])
            found = norms(at, replace(config.sampler, steps=point["T"], residual=residual))
            record["points"] = add_entry(
                file, head, "points", point | {"grad_Z": found.Z, "grad_c": found.c}, key=_place
            )
    return record


def _points(file: Path, key: str) -> list[dict[str, Any]]:
    """The points of a record, or InputError where they were measured with something else."""
    found = read_record(file, "points", "into", "source", "decay", "T", "seed")
    if found.get("key") != key:
        raise InputError(
            f"{file} holds gradient norms of another configuration, prior or data set; give "
            "another file, or delete it to measure anew"
        )
    return list(found["points"])


def _place(point: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which point it is."""
    return tuple(point[k] for k in ("into", "source", "decay", "T", "seed"))


def slope(steps: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of the power law T ** p that fits best: the slope of log norm over log T.

    Args:
        steps: how many, T.
        values: norms, above 0.

    Returns:
        The slope; NaN where a norm is 0 or there are less than two different T.
    """
    if len(set(steps)) < 2 or min(values) <= 0:
        return math.nan
    return float(linregress(np.log(steps), np.log(values)).slope)


def gains(record: Mapping[str, Any], steps: int, code: str = "Z") -> list[float]:
    """Norm with equation (6)'s residual over the norm without one (section 4.2), by seed.

    Args:
        record: of :func:`measure`.
        steps: how many the sampler takes, T.
        code: "Z" or "c".

    Returns:
        One ratio for each seed that has both; none where nothing is measured.
    """
    by_seed: dict[int, dict[Residual, float]] = {}
    for p in record["points"]:
        residual = Residual(p["into"], p["source"], p["decay"])
        if p["T"] == steps and residual in (PAPER_RESIDUAL, NO_RESIDUAL):
            by_seed.setdefault(p["seed"], {})[residual] = p[f"grad_{code}"]
    both = [norms for norms in by_seed.values() if len(norms) == 2]
    return [n[PAPER_RESIDUAL] / n[NO_RESIDUAL] for n in both if n[NO_RESIDUAL] > 0]


def table(record: Mapping[str, Any], code: str = "Z") -> pd.DataFrame:
    """Norms and slopes of a record, one row a route.

    Args:
        record: of :func:`measure`.
        code: "Z" or "c".

    Returns:
        Indexed by (into, source, decay), in the order of measurement, of the routes and seeds that
        have every T. For each T the geometric mean over the seeds; then `slope`, the mean of the
        seeds' log-log slopes, the `least` and the `greatest` of them, and how many `seeds` it has.
    """
    frame = pd.DataFrame(record["points"])
    names, Ts = ["into", "source", "decay"], sorted({int(p["T"]) for p in record["points"]})
    rows = []
    for route, points in frame.groupby(names, sort=False):
        by_seed = points.pivot(index="seed", columns="T", values=f"grad_{code}")
        whole = by_seed.reindex(columns=Ts).dropna().to_numpy()
        if not len(whole):  # not all of it is measured yet
            continue
        slopes = [slope(Ts, line) for line in whole.tolist()]
        with np.errstate(divide="ignore"):  # a norm of 0 has the mean 0
            means = np.exp(np.log(whole).mean(0)).tolist()
        spread = [float(np.mean(slopes)), min(slopes), max(slopes)]
        rows.append([*route, *means, *spread, len(slopes)])
    columns = [*names, *Ts, "slope", "least", "greatest", "seeds"]
    return pd.DataFrame(rows, columns=columns).set_index(names)

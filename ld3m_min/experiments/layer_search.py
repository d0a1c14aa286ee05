"""Which layer of a style-based generator GLaD learns at (section 2.3): a search at equal budget.

W+ and each F_n are distilled alike, and their sets evaluated on validation images, by networks that
are not among the reported unseen ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ld3m_min.config import VALIDATORS, DistilConfig, EvalConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import evaluate
from ld3m_min.prior.style_gan import StyleGenerator
from ld3m_min.run import distil


@dataclass(frozen=True)
class LayerSearch:
    """What a search has found.

    Attributes:
        accuracies: mean validation accuracy over the networks, by layer; 0 is W+.
        best: the layer with the highest, one that diverged aside; of equal ones, the first that was
            tried.
    """

    accuracies: dict[int, float]
    best: int


def at_layer(config: DistilConfig, layer: int) -> DistilConfig:
    """A configuration that learns at a layer.

    Args:
        config: of a distillation.
        layer: n of F_n; 0 for W+.
    """
    if layer == 0:
        return replace(config, space="glad-w")
    return replace(config, space="glad-f", glad=replace(config.glad, layer=layer))


def search_layer(
    config: DistilConfig,
    data: DataSplits,
    layers: Iterable[int],
    *,
    prior: StyleGenerator,
    protocol: EvalConfig,
    out: str | Path,
    rate: Callable[[DistilConfig], float] | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> LayerSearch:
    """Distil at several layers, and see which set teaches best.

    Args:
        config: of each distillation, but for its layer.
        data: whose validation images are classified.
        layers: that are tried; 0 is W+.
        prior: the generator.
        protocol: of the evaluations; its split is set.
        out: folder of the runs, one for each layer; a stopped search goes on there.
        rate: the learning rate of a configuration, where not all layers take that of `config`.
        device: where the work is done.
        progress: show bars.

    Raises:
        InputError: no layer, one that the generator lacks, or all of them diverged.
    """
    tried = list(layers)
    if not tried:
        raise InputError("there is no layer to try; name some, 0 for W+")
    for layer in filter(None, tried):
        prior.check_layer(layer)
    protocol, accuracies = replace(protocol, split="validation"), {}
    for layer in tried:
        one, place = at_layer(config, layer), Path(out) / f"layer-{layer}"
        one = one if rate is None else replace(one, lr=rate(one))
        made = distil(one, data=data, prior=prior, out=place, device=device, progress=progress)
        found = evaluate(
            made, data, VALIDATORS, config=protocol, out=place / "evaluation", progress=progress
        )
        accuracies[layer] = sum(found.mean(a) for a in VALIDATORS) / len(VALIDATORS)
    settled = [n for n in tried if math.isfinite(accuracies[n])]
    if not settled:
        raise InputError(
            f"trainings diverged at every layer that was tried, {', '.join(map(str, tried))}, so "
            "none is the best; try other layers or a lower rate"
        )
    return LayerSearch(accuracies, max(settled, key=lambda n: accuracies[n]))

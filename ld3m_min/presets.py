"""Named configurations: the paper, one GPU, a laptop, a smoke test.

A preset is more than one configuration: its learning rate and length depend on what is matched and
what is learned, other values on the image size and on the images per class. :func:`preset` looks
them up; a setting that is given wins over all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ld3m_min.backprop import AUTO
from ld3m_min.config import (
    ALGORITHMS,
    SPACES,
    STYLE_SPACES,
    DDiFConfig,
    DistilConfig,
    EvalConfig,
    FreDConfig,
    MTTConfig,
    NetworkConfig,
    joined,
    to_dict,
)
from ld3m_min.errors import InputError
from ld3m_min.io.digests import digest
from ld3m_min.io.values import from_dict, within
from ld3m_min.residual import PAPER_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig
from ld3m_min.systems import SYSTEMS

RULED_BY = ("algorithm", "space", "ipc", "size")  # what other values of a preset depend on
BATCH = 32  # images of a step on sets of more than one image per class
FEWEST = 15  # epochs on them
Key = str | tuple[str, str] | tuple[str, str, int]  # algorithm, system or space, images per class


@dataclass(frozen=True)
class Preset:
    """A named size of every experiment.

    Attributes:
        distil: the distillation.
        evaluation: the evaluation of what it makes.
        lr: learning rate of the distillation by (algorithm, system, IPC), (algorithm, system) or
            algorithm, whichever is found first; else that of `distil`. A system that has none
            takes its space's. The rate of a variant is found under "system:variant", by
            :func:`variant_lr` alone.
        iterations: number of them, looked up as `lr` is.
        style_prior: prior of the spaces of a style-based generator; "" where there is none.
        distil_at: what changes in the distillation at some image size, in pixels.
        evaluation_at: what changes in the evaluation at some number of images per class.
        scaled: whether larger sets are trained on as :func:`for_larger_sets` has it, where
            `evaluation_at` says nothing.
        changes: what is set over all that, as nested mappings of fields.
        about: one line for a list of presets.
    """

    distil: DistilConfig
    evaluation: EvalConfig
    lr: dict[Key, float] = field(default_factory=dict)
    iterations: dict[Key, int] = field(default_factory=dict)
    style_prior: str = ""
    distil_at: dict[int, dict[str, Any]] = field(default_factory=dict)
    evaluation_at: dict[int, dict[str, Any]] = field(default_factory=dict)
    scaled: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


_EQUATION_6 = SamplerConfig(residual=PAPER_RESIDUAL, eta=1.0)
_PAPER = Preset(
    DistilConfig(
        dataset="imagenette",
        size=128,
        iterations=5000,
        prior="cin256-v2",
        sampler=_EQUATION_6,
        plan=AUTO,
    ),
    EvalConfig(),
    lr={"DC": 1e-3, "DM": 1e-2, "MTT": 10.0},
    distil_at={256: {"iterations": 10000, "sampler": replace(_EQUATION_6, steps=20)}},
    about="equation (6) and the supplement's values: 128 px, T = 10, 5,000 iterations and experts",
)
_CPU = Preset(
    DistilConfig(
        iterations=60,
        batch_real=64,
        network=NetworkConfig(width=32),
        mtt=MTTConfig(
            experts=10,
            train_epochs=8,
            expert_lr=0.02,
            expert_batch=64,
            expert_epochs=2,
            max_start_epoch=5,
            steps=10,
            lr=0.02,
            lr_lr=1e-5,
        ),
        ddif=DDiFConfig(fit_steps=200),
        checkpoint_every=20,
    ),
    EvalConfig(
        epochs=150,
        width=32,
        ema=0.967,
        lr={"default": 0.01, "AlexNet": 0.006, "VGG11": 0.002, "ResNet18": 0.03, "ViT": 0.001},
    ),
    lr={
        ("DC", "pixel"): 0.1,
        ("DC", "autoencoder"): 0.1,
        ("DC", "ld3m"): 1.0,
        ("DM", "pixel"): 0.1,
        ("DM", "autoencoder"): 0.3,
        ("DM", "ld3m"): 0.1,
        ("MTT", "pixel"): 30.0,
        ("MTT", "autoencoder"): 30.0,
        ("MTT", "ld3m"): 30.0,  # by `tune`, on validation
        # DM matches means: each of ten images gets a tenth of the gradient, so its rate is ten
        # times that of one
        ("DM", "pixel", 10): 1.0,
        ("DM", "autoencoder", 10): 3.0,
        ("DM", "ld3m", 10): 1.0,
    },
    style_prior="style-digits",
    evaluation_at={10: {"epochs": 60, "batch": 50, "ema": 0.917}},
    about="digits at 32 px on two CPU cores; widths, epochs, experts and iterations are shrunk",
)
# rates of the evidence, one image per class, as the search found them: powers of its factor
_FOUND: dict[tuple[str, str], int] = {
    ("DM", "pixel"): -2,
    ("DM", "autoencoder"): -1,
    ("DM", "autoencoder-bytes"): 1,
    ("DM", "ld3m-paper"): -1,
    ("DM", "ld3m-paper:no-residual"): -2,
    ("DM", "ld3m-paper:no-residual-z34"): -3,
    ("DM", "ld3m-paper:c-only"): -2,
    ("DM", "ld3m-code"): -1,
    ("DM", "fred"): 0,
    ("DM", "ddif"): -9,
    ("DM", "glad-w"): -3,
    ("DM", "glad-f"): -4,
}
PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        DistilConfig(
            iterations=2,
            batch_real=16,
            network=NetworkConfig(width=16),
            sampler=SamplerConfig(steps=2),
            mtt=MTTConfig(
                experts=2,
                train_epochs=2,
                expert_epochs=1,
                max_start_epoch=1,
                steps=2,
                expert_lr=0.1,
                lr=0.1,
            ),
            fred=FreDConfig(kept=512),
            ddif=DDiFConfig(width=20, hidden=2, fit_steps=3),
            checkpoint_every=1,
        ),
        EvalConfig(epochs=3, repeats=2, width=16, lr={"default": 0.01}),
        style_prior="style-digits",
        about="seconds; shows that everything runs, measures nothing",
    ),
    "cpu": _CPU,
    "evidence": replace(
        _CPU,
        # `rate-search evidence` found these; what it hasn't searched yet has the rates of cpu, and
        # no record that is made with them will stand
        lr=_CPU.lr
        | {key: 3.0**power for key, power in _FOUND.items()}
        # as for cpu: of ten images each gets a tenth of DM's gradient
        | {(*key, 10): 10 * 3.0**power for key, power in _FOUND.items() if key[0] == "DM"},
        evaluation=replace(
            _CPU.evaluation,
            epochs=400,  # AlexNet is slow to leave chance, without normalisation
            ema=0.9875,
            repeats=2,
            lr={  # by `rate-search evidence --networks`, on random real images
                "default": 3.0**-5,
                "ResNet18": 3.0**-3,
                "ViT": 3.0**-6,
                "MLP": 3.0**-6,
                "ResNet10": 3.0**-1,
            },
        ),
        evaluation_at={},
        scaled=True,
        about="digits on two CPU cores, for the experiments of the book: as cpu, with networks "
        "trained until none fails",
    ),
    "gpu": Preset(
        replace(_PAPER.distil, iterations=1000, mtt=MTTConfig(experts=100)),
        EvalConfig(),
        lr=_PAPER.lr,
        about="as paper, with 1,000 iterations and 100 experts",
    ),
    "paper": _PAPER,
    "photos": Preset(
        DistilConfig(
            dataset="imagenette",
            size=64,
            iterations=60,
            batch_real=64,
            prior="imagenette-64",
            network=NetworkConfig(width=64),
            plan=replace(AUTO, probe=True),
            mtt=replace(_CPU.distil.mtt, experts=5),
            ddif=_CPU.distil.ddif,
            checkpoint_every=20,
        ),
        EvalConfig(
            epochs=400,
            width=32,
            repeats=3,
            ema=0.9875,
            lr={  # searched on random real images, see the record `networks-imagenette-photos`
                "default": 3.0**-4,
                "ConvNet": 3.0**-7,
                "AlexNet": 3.0**-5,
                "VGG11": 3.0**-6,
                "ResNet18": 3.0**-3,
                "ViT": 3.0**-8,
            },
        ),
        lr={"DC": 1.0, "DM": 0.3, "MTT": 30.0},
        style_prior="style-imagenette-64",
        scaled=True,
        about="ImageNette at 64 px on two CPU cores; widths, epochs, experts and iterations are "
        "shrunk",
    ),
    "own": Preset(
        DistilConfig(
            dataset="",
            size=64,
            iterations=200,
            batch_real=32,
            prior="",
            network=NetworkConfig(width=32),
            plan=AUTO,
            mtt=replace(_CPU.distil.mtt, experts=5),
            ddif=_CPU.distil.ddif,
            checkpoint_every=20,
        ),
        EvalConfig(
            epochs=300,
            width=32,
            repeats=3,
            ema=0.9833,
            lr={"default": 0.01, "VGG11": 0.003, "MLP": 0.001, "ResNet18": 0.03, "ViT": 0.001},
        ),
        lr={"DC": 1.0, "DM": 0.3, ("DM", "pixel"): 0.1, "MTT": 30.0},
        scaled=True,
        about="a folder of one's own images on a laptop; it is what `distil FOLDER` takes",
    ),
    "photos-smoke": Preset(
        DistilConfig(
            dataset="imagenette",
            size=64,
            iterations=2,
            batch_real=4,
            prior="imagenette-64-smoke",
            network=NetworkConfig(width=8),
            sampler=SamplerConfig(steps=2),
            mtt=MTTConfig(experts=1, train_epochs=1, expert_epochs=1, max_start_epoch=0, steps=2),
            ddif=DDiFConfig(fit_steps=2),
            checkpoint_every=1,
        ),
        EvalConfig(epochs=1, repeats=1, width=8),
        style_prior="style-imagenette-64-smoke",
        about="two iterations of photos; shows that its commands run, measures nothing",
    ),
    "nette": Preset(
        replace(
            _PAPER.distil,
            iterations=1000,
            prior="imagenette-128",
            mtt=MTTConfig(experts=60, train_epochs=8),
        ),
        EvalConfig(),
        lr=_PAPER.lr,
        distil_at=_PAPER.distil_at
        | {256: {"iterations": 1000, "sampler": replace(_EQUATION_6, steps=20)}},
        about="as paper, for ImageNette with the prior trained here: 1,000 iterations, 60 experts "
        "of 8 epochs",
    ),
    "nette-smoke": Preset(
        replace(
            _PAPER.distil,
            iterations=2,
            batch_real=4,
            prior="imagenette-128-smoke",
            network=NetworkConfig(width=8),
            sampler=SamplerConfig(steps=2),
            checkpoint_every=1,
            mtt=MTTConfig(experts=1, train_epochs=1, expert_epochs=1, max_start_epoch=0, steps=2),
            ddif=DDiFConfig(fit_steps=2),
        ),
        EvalConfig(epochs=1, repeats=1, width=8),
        lr=_PAPER.lr,
        about="two iterations of nette, on a CPU; shows that its commands run, measures nothing",
    ),
    "reference": Preset(
        replace(
            _PAPER.distil,
            iterations=10000,
            sampler=SamplerConfig(residual=PUBLIC_RESIDUAL),
            redraw_noise=True,
            normalisation="reference-mismatch",
            mtt=MTTConfig(expert_epochs=2, max_start_epoch=2, steps=10, gradient="approximate"),
        ),
        EvalConfig(),
        lr={"DC": 0.1, "DM": 1.0, "MTT": 1000.0},
        about="the public code's defaults and variants, for comparison",
    ),
}


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose {', '.join(PRESETS)}")
    return PRESETS[name]


def _known(kind: type[DistilConfig] | type[EvalConfig], names: Mapping[str, Any]) -> None:
    known = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(names) - known):
        raise InputError(
            f"unknown setting {', '.join(unknown)}; {kind.__name__} has {', '.join(sorted(known))}"
        )


def preset(
    name: str, *, algorithm: str = "DM", space: str = "ld3m", **overrides: Any
) -> DistilConfig:
    """The named preset for one algorithm and system.

    Args:
        name: a key of `PRESETS`.
        algorithm: what is matched.
        space: what is learned: a space, or a system of :mod:`ld3m_min.systems`.
        **overrides: fields of :class:`~ld3m_min.config.DistilConfig` that are set as they are.

    Raises:
        InputError: a name, field or value is unknown or doesn't fit; lists the choices.

    Example:
        >>> from ld3m_min import preset
        >>> config = preset("paper", algorithm="MTT", size=256)
        >>> config.iterations, config.lr, config.sampler.steps
        (10000, 10.0, 20)
    """
    chosen = _preset(name)
    within(algorithm, ALGORITHMS, "algorithm")
    within(space, tuple(dict.fromkeys((*SPACES, *SYSTEMS))), "space")
    _known(DistilConfig, overrides)
    asked = {"ipc": 1, "size": chosen.distil.size} | dict(chosen.changes) | overrides
    system = SYSTEMS.get(space)
    kind = space if system is None else system.space
    values: dict[str, Any] = {"algorithm": algorithm, "space": kind}
    tables: dict[str, Mapping[Key, float]] = {"lr": chosen.lr, "iterations": chosen.iterations}
    ipc = asked["ipc"]
    keys: list[Key] = [(algorithm, space, ipc), (algorithm, kind, ipc)]
    keys += [(algorithm, space), (algorithm, kind), algorithm]
    for field_name, table in tables.items():
        if found := [table[key] for key in keys if key in table]:
            values[field_name] = found[0]
    if kind in STYLE_SPACES and chosen.style_prior:
        values["prior"] = chosen.style_prior
    at_size = chosen.distil_at.get(asked["size"], {})
    below = replace(chosen.distil, **values | at_size)
    if system is not None and system.residual is not None:
        sampler = replace(below.sampler, residual=system.residual, eta=system.eta)
        below = replace(below, sampler=sampler)
    fields = to_dict(below)
    made = from_dict(DistilConfig, joined(fields, chosen.changes, DistilConfig))
    return replace(made, **overrides)


def variant_lr(name: str, algorithm: str, system: str, variant: str) -> float | None:
    """The rate that was searched for a variant of a system; None where it takes the system's.

    Args:
        name: a key of `PRESETS`.
        algorithm: what is matched.
        system: of :mod:`ld3m_min.systems`.
        variant: a name of `ld3m_min.experiments.cells.VARIANTS`.

    Raises:
        InputError: there is no such preset.
    """
    return _preset(name).lr.get((algorithm, f"{system}:{variant}"))


def for_larger_sets(base: EvalConfig, per_class: float) -> EvalConfig:
    """The evaluation of a set of more than one image per class: fewer epochs, of more steps.

    The epochs fall with the square root of the images per class, so that the steps rise with it;
    the averaging of weights keeps its share of them.

    Args:
        base: of one image per class.
        per_class: images of a class, on average.
    """
    if per_class <= 1:
        return base
    epochs = min(base.epochs, max(FEWEST, round(base.epochs / math.sqrt(per_class))))
    ema = 1 - min(1.0, (1 - base.ema) * base.epochs / epochs)
    return replace(base, epochs=epochs, batch=BATCH, ema=ema)


def eval_preset(
    name: str, *, ipc: int = 1, per_class: float | None = None, **overrides: Any
) -> EvalConfig:
    """The named preset's evaluation.

    Args:
        name: a key of `PRESETS`.
        ipc: images per class of the set that is evaluated, or those whose storage it takes.
        per_class: how many images per class it has, on average; None for `ipc`.
        **overrides: fields of :class:`~ld3m_min.config.EvalConfig` that are set as they are.

    Raises:
        InputError: a name, field or value is unknown or doesn't fit; lists the choices.

    Example:
        >>> from ld3m_min import eval_preset
        >>> [eval_preset("cpu", ipc=ipc, repeats=3).epochs for ipc in (1, 10)]
        [150, 60]
    """
    chosen = _preset(name)
    found = replace(chosen.evaluation, **chosen.evaluation_at.get(ipc, {}))
    if chosen.scaled and ipc not in chosen.evaluation_at:
        found = for_larger_sets(found, ipc if per_class is None else per_class)
    _known(EvalConfig, overrides)
    return replace(found, **overrides)


@contextmanager
def preset_with(name: str, changes: Mapping[str, Any]) -> Iterator[str]:
    """While inside: a preset that is the named one with `changes`, for what takes a preset's name.

    Args:
        name: a key of `PRESETS`.
        changes: as of :class:`Preset`; where there are none, the preset itself is given.

    Yields:
        The name: of `name` and of a digest of the changes, so that no two are mistaken.
    """
    if not changes:
        yield name
        return
    own = f"{name}-{digest(dict(changes))[:8]}"
    PRESETS[own] = replace(_preset(name), changes=changes, about=f"{name}, with changes")
    try:
        yield own
    finally:
        del PRESETS[own]

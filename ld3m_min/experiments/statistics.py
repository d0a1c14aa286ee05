"""The statistics of the experiments: which difference between two systems is more than chance.

The distillation is the unit, known by its seed: networks trained on one distilled set are no
evidence about another. Systems are compared seed by seed (:func:`paired`), all networks together,
each alone (:func:`by_network`), and without each (:func:`without_each_network`). One or two
comparisons are named as the primary ones before they are measured; p values are adjusted for their
number, the primary ones' and the others' (:func:`summary`). Mean and deviation as the paper prints
them stand beside (:func:`as_printed`). All accuracies and differences are fractions; texts and
tables show percentage points.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray

from ld3m_min.errors import InputError
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.records import as_result
from ld3m_min.experiments.resampling import (
    RESAMPLES,
    Interval,
    hierarchical_bootstrap,
    holm,
    sign_flip,
)


@dataclass(frozen=True, eq=False)
class Runs:
    """Accuracies of one system.

    A training that diverged has no accuracy. It can't be left out, since that would favour the
    system that diverges: it is refused, or counted as an accuracy that is said aloud (see
    :func:`from_records`).

    Attributes:
        name: of the system.
        seeds: of its distillations.
        networks: that were trained on the sets.
        accuracies: of shape (seeds, networks, trainings), in [0, 1].
        diverged: seed and network of each training that diverged and is counted as an accuracy.

    Raises:
        InputError: the shape doesn't fit; a seed or network is named twice; an accuracy is not a
            number, or outside [0, 1].
    """

    name: str
    seeds: tuple[int, ...]
    networks: tuple[str, ...]
    accuracies: NDArray[np.float64]
    diverged: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        shape, value = self.accuracies.shape, self.accuracies
        if len(shape) != 3 or shape[:2] != (len(self.seeds), len(self.networks)) or not value.size:
            raise InputError(
                f"{self.name}: accuracies of shape {shape} don't fit {len(self.seeds)} seeds x "
                f"{len(self.networks)} networks x trainings"
            )
        if len({*self.seeds}) < len(self.seeds) or len({*self.networks}) < len(self.networks):
            raise InputError(f"{self.name}: a seed or a network is named twice")
        if np.isnan(value).any():
            s, n, _ = np.argwhere(np.isnan(value))[0]
            raise InputError(
                f"{self.name}: {np.isnan(value).sum()} accuracies are not a number, the first of "
                f"seed {self.seeds[s]}, {self.networks[n]}; a training that diverged has to be "
                "counted as some accuracy, such as chance"
            )
        if (value < 0).any() or (value > 1).any():
            raise InputError(f"{self.name}: accuracies are fractions between 0 and 1")

    def only(self, networks: Sequence[str]) -> Runs:
        """The same with some of the networks.

        Args:
            networks: their names.

        Raises:
            InputError: one of them was not trained.
        """
        if unknown := [n for n in networks if n not in self.networks]:
            raise InputError(f"{self.name} has no network {', '.join(unknown)}")
        where = [self.networks.index(n) for n in networks]
        lost = tuple((s, n) for s, n in self.diverged if n in networks)
        return replace(
            self, networks=tuple(networks), accuracies=self.accuracies[:, where], diverged=lost
        )

    def trainings(self, seeds: Sequence[int] | None = None) -> Float[NDArray[np.float64], "S R"]:
        """Means over the networks.

        Args:
            seeds: which, in this order; None for all.
        """
        chosen = self.seeds if seeds is None else seeds
        where = [self.seeds.index(s) for s in chosen]
        means: NDArray[np.float64] = self.accuracies[where].mean(1)
        return means


@dataclass(frozen=True)
class Printed:
    """An accuracy as the paper prints it.

    Attributes:
        mean: over trainings, a fraction.
        std: over trainings, by the population's formula.
    """

    mean: float
    std: float

    def __str__(self) -> str:
        """In per cent."""
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f}"


@dataclass(frozen=True)
class Paired:
    """One system minus another, seed by seed.

    Attributes:
        seeds: that both have.
        differences: of each seed, the mean over networks and trainings.
        mean: of the differences.
        std: of the differences, by the sample's formula.
        interval: of the mean.
        p: of the sign-flip test, two-sided.
        left_out: seeds that only one of the two has.
        diverged: how many trainings in this comparison diverged and are counted as an accuracy.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    std: float
    interval: Interval
    p: float
    left_out: tuple[int, ...] = ()
    diverged: int = 0

    @property
    def points(self) -> str:
        """Mean and 95 % interval as text, in points: "+1.2 (+0.3 to +2.1)"."""
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return f"{100 * self.mean:+.1f} ({low:+.1f} to {high:+.1f})"

    @property
    def n(self) -> int:
        """How many seeds were compared."""
        return len(self.seeds)

    def __str__(self) -> str:
        """In percentage points, with its interval; p depends on how many were asked for."""
        low, high = 100 * self.interval.low, 100 * self.interval.high
        text = (
            f"{100 * self.mean:+.1f} points ({100 * self.interval.level:g} % interval {low:+.1f} "
            f"to {high:+.1f}; {self.n} seeds)"
        )
        if self.left_out:
            text += f"; only one has seeds {', '.join(map(str, self.left_out))}"
        if self.diverged:
            text += f"; trainings that diverged: {self.diverged}"
        return text


def from_records(
    records: Iterable[Mapping[str, Any]],
    networks: Sequence[str] | None = None,
    diverged: float | None = None,
) -> dict[Cell, Runs]:
    """The records of cells, those together that differ in the seed alone.

    Args:
        records: of cells.
        networks: that are wanted; None for those that took no part in the distillation.
        diverged: the accuracy that a training which diverged counts as, such as that of chance;
            None refuses it.

    Returns:
        By the cell with seed 0, whether that was run or not.

    Raises:
        InputError: a training diverged; two records are of one cell; records of a system differ in
            their networks or in the number of trainings.
    """
    groups: dict[Cell, dict[int, dict[str, tuple[float, ...]]]] = {}
    for record in records:
        cell, result = Cell(**record["cell"]), as_result(record)
        wanted = result.unseen if networks is None else networks
        if absent := [n for n in wanted if n not in result.accuracies]:
            raise InputError(f"the record of {cell.name} has no network {', '.join(absent)}")
        group = groups.setdefault(replace(cell, seed=0), {})
        if cell.seed in group:
            raise InputError(f"there are two records of {cell.name}")
        group[cell.seed] = {n: result.accuracies[n] for n in wanted}
    return {cell: _runs(cell.name, group, diverged) for cell, group in groups.items()}


def _runs(
    name: str, group: Mapping[int, Mapping[str, tuple[float, ...]]], diverged: float | None
) -> Runs:
    """The accuracies of a system, by seed and network, as an array."""
    seeds = tuple(sorted(group))
    networks = tuple(group[seeds[0]])
    if len({frozenset((n, len(v)) for n, v in group[s].items()) for s in seeds}) > 1 or (
        len({len(v) for v in group[seeds[0]].values()}) > 1
    ):
        raise InputError(
            f"the records of {name} differ in their networks or in the number of trainings"
        )
    values = np.array([[group[s][n] for n in networks] for s in seeds], dtype=np.float64)
    if diverged is None:
        return Runs(name, seeds, networks, values)
    lost = tuple((seeds[s], networks[n]) for s, n, _ in np.argwhere(np.isnan(values)))
    return Runs(name, seeds, networks, np.where(np.isnan(values), diverged, values), lost)


def as_printed(runs: Runs) -> Printed:
    """Mean and standard deviation over all trainings, as the paper prints them (section 4.2).

    The deviation mixes seeds and trainings; it says nothing of the uncertainty of the mean.

    Args:
        runs: of a system.
    """
    values = runs.trainings()
    return Printed(float(values.mean()), float(values.std()))


def paired(
    a: Runs, b: Runs, rng: Generator, *, level: float = 0.95, resamples: int = RESAMPLES
) -> Paired:
    """One system minus another, by the seeds that both have.

    Args:
        a: the system of which more is expected.
        b: the one that it is compared with; the same networks.
        rng: made from a seed.
        level: of confidence.
        resamples: of the bootstrap, and of the test where it doesn't list all flips.

    Raises:
        InputError: the networks differ; fewer than two seeds are in common; a level out of range.
    """
    if {*a.networks} != {*b.networks}:
        raise InputError(
            f"{a.name} and {b.name} were evaluated on other networks: {', '.join(a.networks)}; "
            f"{', '.join(b.networks)}"
        )
    seeds = tuple(s for s in a.seeds if s in b.seeds)
    if len(seeds) < 2:
        raise InputError(
            f"{a.name} has seeds {', '.join(map(str, a.seeds))}, {b.name} has "
            f"{', '.join(map(str, b.seeds))}: a comparison needs 2 in common, and 6 for a p value "
            "below 0.05"
        )
    ours, theirs = a.trainings(seeds), b.trainings(seeds)
    differences = ours.mean(1) - theirs.mean(1)
    return Paired(
        seeds,
        tuple(differences.tolist()),
        float(differences.mean()),
        float(differences.std(ddof=1)),
        hierarchical_bootstrap(ours, theirs, rng=rng, level=level, resamples=resamples),
        sign_flip(differences, rng=rng, resamples=resamples),
        tuple(sorted({*a.seeds} ^ {*b.seeds})),
        sum(s in seeds for s, _ in a.diverged + b.diverged),
    )


def by_network(a: Runs, b: Runs, rng: Generator) -> dict[str, Paired]:
    """The comparison on each network alone.

    Args:
        a: as for :func:`paired`.
        b: as for :func:`paired`.
        rng: made from a seed.

    Raises:
        InputError: as for :func:`paired`.
    """
    return {n: paired(a.only([n]), b.only([n]), rng) for n in a.networks}


def without_each_network(a: Runs, b: Runs, rng: Generator) -> dict[str, Paired]:
    """The comparison with each network left out in turn, by the one that is left out.

    A result that one network alone carries is seen here.

    Args:
        a: as for :func:`paired`.
        b: as for :func:`paired`.
        rng: made from a seed.

    Raises:
        InputError: there is one network only; or as for :func:`paired`.
    """
    if len(a.networks) < 2:
        raise InputError(f"{a.name} has one network; without it nothing is left")
    others = {n: [m for m in a.networks if m != n] for n in a.networks}
    return {n: paired(a.only(rest), b.only(rest), rng) for n, rest in others.items()}


def summary(
    comparisons: Mapping[str, Paired], primary: str | Collection[str], *, absent: int = 0
) -> pd.DataFrame:
    """A table of comparisons, the primary ones first.

    Args:
        comparisons: by name; all of them.
        primary: the one or more that were named before they were measured. Their p values are
            adjusted by :func:`holm` among themselves, the others' among the others.
        absent: how many more of the others were asked for and aren't measured yet; they count as
            p = 1, so that no p value falls because a measurement lacks.

    Returns:
        Differences and intervals in percentage points, by comparison.

    Raises:
        InputError: there is no such comparison.
    """
    first = [primary] if isinstance(primary, str) else list(primary)
    if unknown := [n for n in first if n not in comparisons]:
        raise InputError(f"no comparison {unknown[0]!r}; choose {', '.join(comparisons)}")
    families = [first, [n for n in comparisons if n not in first]]
    names = [n for family in families for n in family]
    rows = [comparisons[n] for n in names]
    adjusted = [
        *holm([comparisons[n].p for n in first]),
        *holm([comparisons[n].p for n in families[1]] + [1.0] * absent)[: len(families[1])],
    ]
    return pd.DataFrame(
        {
            "difference": [100 * r.mean for r in rows],
            "std": [100 * r.std for r in rows],
            "low": [100 * r.interval.low for r in rows],
            "high": [100 * r.interval.high for r in rows],
            "p": [r.p for r in rows],
            "adjusted p": adjusted,
            "seeds": [r.n for r in rows],
        },
        index=pd.Index(names, name="comparison"),
    )

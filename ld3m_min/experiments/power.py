"""How many distillation seeds tell two systems apart, by simulation from a pilot."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray

from ld3m_min.errors import InputError
from ld3m_min.experiments.resampling import checked_seeds
from ld3m_min.experiments.statistics import Runs


@dataclass(frozen=True)
class Spread:
    """Where the differences between two systems vary.

    Attributes:
        seeds: standard deviation of a seed's difference, had it endless trainings.
        trainings: standard deviation of one training's mean over the networks, of one system.
    """

    seeds: float
    trainings: float


def spread(a: Runs, b: Runs) -> Spread:
    """How much seeds and trainings vary, by a one-way analysis of variance of a pilot's runs.

    With one training of each system the two can't be told apart: all is put down to the seeds.

    Args:
        a: one system.
        b: the other.

    Raises:
        InputError: fewer than two seeds are in common.
    """
    seeds = [s for s in a.seeds if s in b.seeds]
    checked_seeds(len(seeds), 0.5)
    systems = [a.trainings(seeds), b.trainings(seeds)]
    difference = systems[0].mean(1) - systems[1].mean(1)
    repeated = [x for x in systems if x.shape[1] > 1]
    if not repeated:
        return Spread(float(difference.std(ddof=1)), 0.0)
    freedom = [x.shape[1] - 1 for x in repeated]
    variances = [float(x.var(1, ddof=1).mean()) for x in repeated]
    within = float(np.average(variances, weights=freedom))
    noise = sum(within / x.shape[1] for x in systems)
    between = max(0.0, float(difference.var(ddof=1)) - noise)
    return Spread(math.sqrt(between), math.sqrt(within))


def power(
    difference: float,
    spread: Spread,
    *,
    seeds: int,
    trainings: int,
    rng: Generator,
    level: float = 0.05,
    simulations: int = 2000,
) -> float:
    """How often the sign-flip test finds a difference that there is, by simulation.

    Seeds and trainings are drawn from normal distributions. Above 11 seeds, 1,024 drawn flips stand
    for all of them.

    Args:
        difference: the true one, a fraction.
        spread: of the two systems, fractions.
        seeds: distillations of each system.
        trainings: of each distilled set.
        rng: made from a seed.
        level: of significance.
        simulations: how many experiments.

    Raises:
        InputError: fewer than two seeds, or no training; a level out of range.
    """
    checked_seeds(seeds, level)
    if trainings < 1:
        raise InputError("a distilled set needs at least one training")
    of_seeds = spread.seeds * rng.standard_normal((simulations, seeds))
    noise = rng.standard_normal((simulations, seeds)) * spread.trainings * math.sqrt(2 / trainings)
    p = _sign_flips(difference + of_seeds + noise, rng)
    return float((p <= level).mean())


def _sign_flips(
    differences: Float[NDArray[np.float64], "E S"], rng: Generator
) -> Float[NDArray[np.float64], " E"]:
    """The two-sided p value of the sign-flip test, of many experiments at a time.

    A flip and its opposite have the same absolute mean, so the first sign stays.
    """
    n = differences.shape[1]
    if n <= 11:
        signs = np.array([(1, *s) for s in itertools.product((1, -1), repeat=n - 1)])
    else:
        signs = np.concatenate([np.ones((1, n), int), rng.choice([1, -1], size=(1023, n))])
    sums = np.abs(differences @ signs.T.astype(np.float64))
    reached: NDArray[np.float64] = (sums >= sums[:, :1] * (1 - 1e-12)).mean(1)
    return reached


def seeds_needed(
    difference: float,
    spread: Spread,
    *,
    trainings: int,
    rng: Generator,
    wanted: float = 0.8,
    level: float = 0.05,
    simulations: int = 2000,
    most: int = 100,
) -> int | None:
    """The fewest seeds with which the sign-flip test finds a difference often enough.

    Args:
        difference: the true one, a fraction.
        spread: of the two systems, fractions.
        trainings: of each distilled set.
        rng: made from a seed.
        wanted: how often it is to be found.
        level: of significance.
        simulations: how many experiments for each number of seeds.
        most: seeds to try.

    Returns:
        None where even `most` seeds are too few.

    Raises:
        InputError: as for :func:`power`.
    """
    for n in range(2, most + 1):
        found = power(
            difference, spread, seeds=n, trainings=trainings, rng=rng, level=level,
            simulations=simulations,
        )  # fmt: skip
        if found >= wanted:
            return n
    return None

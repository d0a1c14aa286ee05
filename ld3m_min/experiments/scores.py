"""Published scores of a distillation, in fractions: HLR, IOR, LRS, ARS."""

from __future__ import annotations

import math

from ld3m_min.errors import InputError


def hlr(real: float, synthetic: float) -> float:
    """Hard-label recovery of DD-Ranking (arXiv 2505.13300): less is better.

    Args:
        real: accuracy after training on all real images with hard labels, a fraction.
        synthetic: after training on the distilled set with hard labels, a fraction.

    Raises:
        InputError: an accuracy is outside [0, 1].
    """
    _fractions(real, synthetic)
    return real - synthetic


def ior(synthetic: float, random: float) -> float:
    """Improvement over random of DD-Ranking: more is better.

    Args:
        synthetic: accuracy after training on the distilled set with its own labels, a fraction.
        random: after the same training on as many random real images, a fraction.

    Raises:
        InputError: an accuracy is outside [0, 1].
    """
    _fractions(synthetic, random)
    return synthetic - random


def lrs(hlr: float, ior: float, weight: float = 0.5) -> float:
    """Label-robust score of DD-Ranking, in [0, 1]: more is better; 0.269 where both are 0.

    Args:
        hlr: of :func:`hlr`.
        ior: of :func:`ior`.
        weight: of the second.

    Raises:
        InputError: a value is out of range, as with percentages.
    """
    return _score(ior, -hlr, weight)


def ars(with_augmentation: float, without: float, weight: float = 0.5) -> float:
    """Augmentation-robust score of DD-Ranking, in [0, 1]: more is better.

    Args:
        with_augmentation: accuracy of the distilled set minus that of random real images, both
            trained with augmentation, as :func:`ior` gives it.
        without: the same without augmentation.
        weight: of the first.

    Raises:
        InputError: a value is out of range, as with percentages.
    """
    return _score(with_augmentation, without, weight)


def _score(first: float, second: float, weight: float) -> float:
    """The exponential score of a weighted mean in [-1, 1], mapped to [0, 1]."""
    if not (-1 <= first <= 1 and -1 <= second <= 1):
        raise InputError("scores are of differences between -1 and 1: fractions, not per cent")
    if not 0 <= weight <= 1:
        raise InputError(f"a weight lies between 0 and 1, not at {weight}")
    mixed = weight * first + (1 - weight) * second
    return (math.exp(mixed) - math.exp(-1)) / (math.e - math.exp(-1))


def _fractions(*accuracies: float) -> None:
    """InputError where an accuracy is no fraction."""
    if not all(0 <= a <= 1 for a in accuracies):
        raise InputError("accuracies are fractions between 0 and 1, not per cent")

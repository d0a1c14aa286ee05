"""What a finished run says about the next one, as far as it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ld3m_min.config import DistilConfig
from ld3m_min.report.accuracy import ALL, DISTILLED, RANDOM, Judged
from ld3m_min.report.words import percent

FEWEST = 20  # iterations that a trend is read from


@dataclass(frozen=True)
class Trend:
    """How the loss of the last quarter of the iterations lies to that of the quarter before.

    Attributes:
        change: of the mean, as a share of the earlier one; below 0 where it fell.
        sure: whether the two differ by more than twice the standard error of their difference.
    """

    change: float
    sure: bool


def trend(history: Sequence[Mapping[str, Any]]) -> Trend | None:
    """Whether the loss was still falling at the end; None where too little is known.

    Args:
        history: an entry for each iteration.
    """
    losses = np.array([h["loss"] for h in history if "loss" in h], dtype=float)
    losses = losses[np.isfinite(losses)]
    if len(losses) < FEWEST:
        return None
    n = len(losses) // 4
    before, last = losses[-2 * n : -n], losses[-n:]
    error = math.sqrt(before.var(ddof=1) / n + last.var(ddof=1) / n)
    difference = float(last.mean() - before.mean())
    scale = abs(float(before.mean())) or 1.0
    return Trend(difference / scale, abs(difference) > 2 * error)


def next_steps(
    config: DistilConfig, history: Sequence[Mapping[str, Any]], judged: Judged | None
) -> list[str]:
    """Sentences on what to try next, each with the measurement that it rests on.

    Args:
        config: of the run.
        history: an entry for each iteration.
        judged: accuracies; None where they weren't measured.
    """
    said = _of_loss(config, history)
    if judged is not None:
        said += _of_accuracy(config, judged)
    if not said:
        said = [
            f"Nothing is said after {len(history)} iterations: a trend of the loss is read from "
            f"{FEWEST} on."
        ]
    return said


def _of_loss(config: DistilConfig, history: Sequence[Mapping[str, Any]]) -> list[str]:
    skipped, found = sum("skipped" in h for h in history), trend(history)
    if skipped:
        return [
            f"{skipped} of {len(history)} iterations were not finite and were skipped: try a lower "
            f"rate, such as --lr {config.lr / 3:.3g}, in another folder."
        ]
    if found is None:
        return []
    change = f"{100 * abs(found.change):.1f} %"
    if found.sure and found.change < 0:
        return [
            f"The loss was still falling: by {change} from the third quarter of the iterations to "
            f"the last. More of them may help: the same command with --iterations "
            f"{2 * config.iterations} goes on from here."
        ]
    if found.sure:
        return [
            f"The loss rose by {change} from the third quarter of the iterations to the last: the "
            f"rate is high. Try --lr {config.lr / 3:.3g}, in another folder."
        ]
    return [
        "The loss no longer fell: the last two quarters of the iterations differ by less than "
        "their noise. More iterations at this rate are not likely to change much; whether another "
        "rate would was not measured."
    ]


def _of_accuracy(config: DistilConfig, judged: Judged) -> list[str]:
    gain, said = judged.gain(), []
    if math.isfinite(gain.low) and gain.low <= 0:
        said.append(
            "These trainings do not tell the distilled images from random real ones (the interval "
            f"of the difference is {100 * gain.low:+.1f} to {100 * gain.high:+.1f} points). Other "
            "settings may: --lr, more iterations, or --ipc. Choose among them by a split that is "
            "not the test images: `evaluate --split validation`."
        )
    if ALL in judged.results:
        gap = judged.unseen(ALL).mean - judged.unseen(DISTILLED).mean
        if gap > 0:
            said.append(
                f"All training images give {percent(gap)} points more than these "
                f"{judged.images[DISTILLED]}. More images per class narrow that, as a rule: "
                f"--ipc {10 if config.ipc == 1 else 2 * config.ipc}, in another folder. It was not "
                "measured here."
            )
    worst = [n for n, v in judged.results[RANDOM].accuracies.items() if any(x != x for x in v)]
    if worst:
        said.append(f"{', '.join(worst)} diverged in a training on real images.")
    return said

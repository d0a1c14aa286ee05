"""Learning rates of the evaluated networks, found once on random real images (section 4.1).

A network whose training fails says nothing about a set. Its rate is chosen where no system takes
part: on images drawn at random, judged on held-out training images, and then fixed for all sets.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ld3m_min.config import ARCHITECTURES, VALIDATORS
from ld3m_min.coresets import select
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import evaluate
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.rate_search import FACTOR, FIRST_SEED, climb
from ld3m_min.experiments.records import add_entry, read_record
from ld3m_min.io.digests import digest
from ld3m_min.io.environment import environment
from ld3m_min.io.progress import bar
from ld3m_min.io.stop import stoppable
from ld3m_min.presets import eval_preset

SETS = 3  # of random images that a rate is tried on
EQUAL = 0.01  # of accuracy: less is no difference between rates
NAMES = tuple(dict.fromkeys((*ARCHITECTURES, *VALIDATORS)))


def network_rates(
    name: str,
    data: DataSplits,
    *,
    ipc: int = 1,
    records: str | Path = RECORDS,
    only: str = "",
    device: str = "cpu",
    progress: bool = True,
) -> dict[str, float]:
    """Try powers of three for each network, until the best has a worse one on both sides.

    Of those that do as well as the best the lowest is taken (:func:`settled`). The record
    `networks-<data>-<preset>.json` grows rate by rate: a stopped search goes on.

    Args:
        name: of the preset, whose evaluation is meant.
        data: its training and validation images are used.
        ipc: images per class of the random sets.
        records: where the record is.
        only: one network; "" for all.
        device: where the work is done.
        progress: show a bar.

    Returns:
        The rate by network, without those that diverged at every one.

    Raises:
        InputError: `only` names no network.
        Interrupted: it was asked to stop; what was tried is in the record.
    """
    if only and only not in NAMES:
        raise InputError(f"unknown network {only!r}; choose {', '.join(NAMES)}")
    file = Path(records) / f"networks-{data.name}-{name}.json"
    tried: list[dict[str, Any]] = []
    if file.exists():
        tried = read_record(file, "tries", "key", "network", "lr", "accuracies")["tries"]
    data = data.to(device)
    sets = [select(data, ipc, "random", seed=FIRST_SEED + i) for i in range(SETS)]
    base = eval_preset(name, ipc=ipc, split="validation", repeats=1)
    content = {"train": data.train.digest, "validation": data.validation.digest}
    asked: list[dict[str, Any]] = []  # the record may hold tries of another protocol as well

    def score(network: str, exponent: int) -> float:
        lr = FACTOR**exponent
        protocol = replace(base, lr={"default": lr})
        key = digest([network, ipc, SETS, asdict(protocol), content])
        found = next((t for t in tried if t["key"] == key), None)
        if found is None:
            with stoppable() as stop:
                if stop.reason:
                    stop.leave(f"{len(tried)} rates are in the record")
            with warnings.catch_warnings():
                # a rate that is too high diverges: that is what is looked for
                warnings.filterwarnings("ignore", message=".* diverged", category=RuntimeWarning)
                values = [
                    evaluate(s, data, (network,), config=protocol, seed=FIRST_SEED + i).mean(
                        network
                    )
                    for i, s in enumerate(sets)
                ]
            found = {"key": key, "network": network, "lr": lr, "ipc": ipc}
            found |= {"accuracies": [v if math.isfinite(v) else None for v in values]}
            head = {"schema": 1, "networks": name, "dataset": data.name, "split": "validation"}
            head |= {"environment": environment(device)}
            tried[:] = add_entry(file, head, "tries", found)
        asked.append(found)
        return _mean(found["accuracies"])

    wanted = [n for n in NAMES if only in ("", n)]
    for network in bar(wanted, desc="networks", show=progress):
        lr = base.lr.get(network, base.lr["default"])
        climb(partial(score, network), round(math.log(lr, FACTOR)))
    return settled(asked)


def settled(tried: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The rate of each network: the lowest that is within `EQUAL` of the best one.

    Where several do as well, a lower one is farther from those that diverge. A network that
    diverged at every rate has none, which is said.

    Args:
        tried: entries of a record.
    """
    scores: dict[str, dict[float, float]] = {}
    for t in tried:
        scores.setdefault(t["network"], {})[t["lr"]] = _mean(t["accuracies"])
    found = {}
    for network, means in scores.items():
        best = max(means.values())
        if best == -math.inf:
            warnings.warn(f"{network} diverged at every rate that was tried", stacklevel=2)
        else:
            found[network] = min(lr for lr, mean in means.items() if mean >= best - EQUAL)
    return found


def _mean(accuracies: Sequence[float | None]) -> float:
    """Mean over the sets; minus infinity where a training diverged on one of them."""
    values = [-math.inf if v is None or math.isnan(v) else v for v in accuracies]
    return sum(values) / len(values)

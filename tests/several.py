"""What `tests/test_several.py` does in one process and in two: `python -m tests.several OUT`."""

import sys
from pathlib import Path

import torch

from ld3m_min.data.loading import load_data
from ld3m_min.io import launcher
from ld3m_min.io.stop import Interrupted, stop_after
from ld3m_min.presets import preset
from ld3m_min.run import distil

CASES = (("DM", "ld3m"), ("MTT", "ld3m"), ("DC", "glad-f"))
ITERATIONS = 2


def made(out):
    """Every tensor and loss of the cases, by name."""
    digits, found = load_data("digits"), {}
    for algorithm, space in CASES:
        config = preset("smoke", algorithm=algorithm, space=space, iterations=ITERATIONS)
        case = distil(config, data=digits, out=out / f"{algorithm}-{space}", progress=False)
        found |= {f"{algorithm} {space} {k}": v for k, v in case.state.items()}
        losses = torch.tensor([h["loss"] for h in case.history])
        found[f"{algorithm} {space} loss"] = losses
    return found


def stopped_and_resumed(out):
    """The first case, stopped after its first iteration by the last process alone."""
    algorithm, space = CASES[0]
    config = preset("smoke", algorithm=algorithm, space=space, iterations=ITERATIONS)
    if launcher.number() == launcher.started() - 1:
        stop_after(0)
    try:
        distil(config, data=load_data("digits"), out=out / "stopped", progress=False)
        said = "it went on"
    except Interrupted as stop:
        said = str(stop)
    stop_after(None)
    case = distil(config, data=load_data("digits"), out=out / "stopped", progress=False)
    return said, dict(case.state)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.save((made(out), *stopped_and_resumed(out)), out / f"{launcher.number()}.pt")

"""What the cases share: folders of drawn images, small settings, and the command line."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ld3m_min.presets import eval_preset, preset
from ld3m_min.synthetic import SyntheticSet

__all__ = [
    "command",
    "eval_preset",
    "folder_of",
    "is_one_sentence",
    "load",
    "picture",
    "preset",
    "settings",
    "synthetic_set",
]


def synthetic_set():
    return SyntheticSet


def picture(seed, size=32):
    """A smooth coloured picture, different for each seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.BICUBIC)


def folder_of(root, classes=("apple", "bear"), n=12, seed=0, size=32, suffix=".png"):
    """An image folder: one subfolder a class, `n` pictures each."""
    root = Path(root)
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            picture(1000 * seed + 100 * k + i, size).save(root / name / f"{i:03d}{suffix}")
    return root


def load(path, size=32, cache=False, **kwargs):
    from ld3m_min.data import load_data

    return load_data(str(path), size=size, cache=cache, progress=False, **kwargs)


def settings(**changes):
    """The smallest distillation there is: two iterations of DM on pixels."""
    base = preset(
        "smoke", algorithm=changes.pop("algorithm", "DM"), space=changes.pop("space", "pixel")
    )
    return replace(base, **{"iterations": 2, "size": 32} | changes)


def command(*args, timeout=120, env=None, cwd=None, **kwargs):
    """`python -m ld3m_min ...`; a result with returncode, stdout, stderr. A hang is a failure."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", "ld3m_min", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        cwd=cwd,
        **kwargs,
    )


def is_one_sentence(result):
    """A mistake ends with a code other than zero, a line for a person, and no traceback."""
    return (
        result.returncode not in (0, 1)
        and "Traceback" not in result.stderr
        and result.stderr.strip()
    )

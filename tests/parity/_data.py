"""The reference values, and where they lie."""

import json
from pathlib import Path

from safetensors.torch import load_file

DATA = Path(__file__).parent / "data"


def load_json(name):
    """The content of data/<name>.json."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def load_tensors(name):
    """The tensors of data/<name>.safetensors by key."""
    return load_file(DATA / f"{name}.safetensors")

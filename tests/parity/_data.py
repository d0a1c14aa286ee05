"""The reference values, and where they lie; two ways to measure a deviation."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

DATA = Path(__file__).parent / "data"


def load_json(name):
    """The content of data/<name>.json."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def load_tensors(name):
    """The tensors of data/<name>.safetensors by key."""
    return {k: v.clone() for k, v in load_file(DATA / f"{name}.safetensors").items()}


def largest(ours, theirs):
    """Largest absolute deviation of two tensors or numbers."""
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def relative(ours, theirs):
    """Norm of the difference relative to the norm of the reference value."""
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64) for x in (ours, theirs))
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


def convnet(tensors=None):
    """The ConvNet of the cases dc, dm and mtt, with the parameters `param.*` if given."""
    from ld3m_min.networks import build_network

    network = build_network("ConvNet", size=32, depth=3, width=16)
    if tensors is not None:
        names = [n for n, _ in network.named_parameters()]
        with torch.no_grad():
            for name, p in network.named_parameters():
                p.copy_(tensors[f"param.{name}"])
        assert set(names) == {k.removeprefix("param.") for k in tensors if k.startswith("param.")}
    return network

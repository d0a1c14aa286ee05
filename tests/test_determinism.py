"""What the page on determinism promises, and which operations keep a GPU from it."""

import re
from pathlib import Path

import pytest
import torch

from ld3m_min.evaluate import evaluate
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import distil, random_real
from tests.data.test_data import load
from tests.faults import pictures

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "reference" / "determinism.md").read_text(encoding="utf-8")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("algorithm", ["DC", "DM"])
def test_threads_change_rounding_alone(digits, threads, algorithm):
    """One thread or two: within a thread count bit for bit, between them equal but for rounding."""
    made = {}
    for n in (1, 2, 1):
        threads(n)
        again = distil(
            preset("smoke", algorithm=algorithm, space="pixel", iterations=1),
            data=digits,
            progress=False,
        )
        if n in made:
            assert torch.equal(made[n], again.images())
        made[n] = again.images()
    assert (made[1] - made[2]).abs().max() < 1e-4


def test_the_order_of_architectures_does_not_decide(digits):
    """Each network has draws of its own.

    Evaluated first, last or alone, it gives the same accuracies.
    """
    real, config = random_real(preset("smoke"), data=digits), eval_preset("smoke")
    orders = ("ConvNet", "ViT"), ("ViT", "ConvNet"), ("ViT",)
    found = [evaluate(real, digits, names, config=config).accuracies for names in orders]
    assert (
        found[0]["ViT"] == found[1]["ViT"] == found[2]["ViT"]
        and found[0]["ConvNet"] == found[1]["ConvNet"]
    )


def test_the_number_of_decoding_threads_does_not_decide(tmp_path, monkeypatch):
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    for c in ("cat", "dog"):
        (tmp_path / "data" / c).mkdir(parents=True)
        for name, data in pictures().items():
            (tmp_path / "data" / c / name).write_bytes(data)
    one, many = (load(tmp_path / "data", workers=n, cache=False) for n in (1, 7))
    assert torch.equal(one.train.images, many.train.images) and torch.equal(
        one.test.images, many.test.images
    )


# names in torch's list, and how the package's code would call them
LISTED = {
    "AdaptiveAvgPool2d": r"AdaptiveAvgPool2d|adaptive_avg_pool2d",
    "AdaptiveMaxPool2d": r"AdaptiveMaxPool2d|adaptive_max_pool2d",
    "interpolate": r"F\.interpolate",
    "ReflectionPad2d": r"ReflectionPad|mode=.reflect",
    "NLLLoss": r"nll_loss|NLLLoss|cross_entropy",
    "grid_sample": r"grid_sample",
    "bincount": r"\.bincount\([^)]*weights",
    "put_": r"\.put_\(",
    "histc": r"\.histc",
    "median": r"\.median\(",
    "cumsum": r"\.cumsum\(",
    "resize_": r"\.resize_\(",
}
PAGE_NAMES = {
    "AdaptiveAvgPool2d": "set_card",
    "AdaptiveMaxPool2d": "networks.convolutional",
    "interpolate": "data.digits",
    "NLLLoss": "distillers.dc",
}


def test_operations_without_a_deterministic_backward_on_a_gpu_are_listed():
    """Those of torch's own list that the package calls are those that the page names."""
    listed = torch.use_deterministic_algorithms.__doc__
    used = {}
    for file in sorted((ROOT / "ld3m_min").rglob("*.py")):
        text = re.sub(r'"""[\s\S]*?"""|#.*', "", file.read_text(encoding="utf-8"))
        for name, call in LISTED.items():
            if name in listed and re.search(call, text):
                used.setdefault(name, []).append(
                    ".".join(file.relative_to(ROOT / "ld3m_min").with_suffix("").parts)
                )
    assert used.keys() == PAGE_NAMES.keys(), f"name these on book/reference/determinism.md: {used}"
    for name, where in PAGE_NAMES.items():
        assert where in used[name] and f"`{name}`" in PAGE, (name, used[name])

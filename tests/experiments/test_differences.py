"""The differences between paper and code: one thing each, and what it does to the gradient."""

import math
from dataclasses import replace

import pytest
import torch

from ld3m_min.config import to_dict
from ld3m_min.errors import InputError
from ld3m_min.experiments import differences
from ld3m_min.experiments.cells import DIFFERENT, VARIANTS, Cell
from ld3m_min.experiments.differences import (
    DIFFERENCES,
    SEEDS,
    Difference,
    changed,
    first_gradient,
    gradient_means,
    measure,
)
from ld3m_min.experiments.grids import GRIDS
from ld3m_min.experts.train import experts_below
from ld3m_min.io.files import write_json
from ld3m_min.run import distil


def cell(variant="", algorithm="DM", seed=0):
    return Cell("digits", "smoke", "ld3m-code", algorithm, 1, seed, variant)


def leaves(tree, place=()):
    if not isinstance(tree, dict):
        return {place: tree}
    return {k: v for key, value in tree.items() for k, v in leaves(value, (*place, key)).items()}


@pytest.mark.parametrize("variant", DIFFERENT)
def test_one_thing_differs(variant):
    before = cell().config()
    a, b = (leaves(to_dict(c)) for c in (before, VARIANTS[variant](before)))
    assert len([k for k in a if a[k] != b[k]]) == 1


def test_every_cell_that_the_page_asks_for_is_in_a_grid():
    known = {c for cells in GRIDS.values() for c in cells}
    wanted = {
        replace(c, seed=s) for d in DIFFERENCES for c in (d.changed, d.base) for s in range(SEEDS)
    }
    assert wanted <= known
    assert {c.variant for c in GRIDS["evidence-differences"]} == set(DIFFERENT)
    assert len({d.text for d in DIFFERENCES}) == len(DIFFERENCES)


def test_a_change_is_an_angle_and_a_length():
    found = changed(torch.tensor([[6.0, 8.0]]), torch.tensor([[5.0, 0.0]]))
    assert found.cosine == pytest.approx(0.6) and found.length == pytest.approx(2.0)
    opposite = changed(-torch.ones(3), 2 * torch.ones(3))
    assert opposite.cosine == pytest.approx(-1) and opposite.length == pytest.approx(0.5)
    gone = changed(torch.zeros(3), torch.ones(3))
    assert math.isnan(gone.cosine) and gone.length == 0


def test_gradients_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        changed(torch.ones(2), torch.ones(3))
    with pytest.raises(InputError, match="is zero"):
        changed(torch.ones(2), torch.zeros(2))


@pytest.mark.parametrize("algorithm", ["DM", "MTT"])
def test_the_first_gradient_is_what_the_first_step_takes(digits, tmp_path, algorithm):
    one = cell(algorithm=algorithm)
    found = first_gradient(one, digits, runs=tmp_path, progress=False)
    assert set(found) == {"Z", "c"}
    config, experts = one.config(), experts_below(tmp_path, one.config(), digits, progress=False)
    start, after = (
        distil(
            replace(config, iterations=n), data=digits, prior=one.load_prior(), experts=experts,
            progress=False,
        ).state
        for n in (0, 1)
    )  # fmt: skip
    for code, gradient in found.items():
        rounding = 4 * torch.finfo(torch.float32).eps * float(start[code].abs().max())
        assert torch.allclose(start[code] - after[code], config.lr * gradient, atol=rounding)


def test_a_record_grows_and_nothing_is_measured_twice(digits, tmp_path, monkeypatch):
    file, asked = tmp_path / "record.json", []
    true = differences.first_gradient
    monkeypatch.setattr(
        differences, "first_gradient", lambda c, *a, **k: asked.append(c.name) or true(c, *a, **k)
    )
    pair = (Difference("noise", cell("redrawn-noise"), cell()),)
    measure(file, digits, differences=pair, seeds=[0], runs=tmp_path, progress=False)
    found = measure(file, digits, differences=pair, seeds=[0, 1], runs=tmp_path, progress=False)
    assert len(asked) == 4 and len(found["points"]) == 2
    assert [p["name"] for p in found["points"]] == [
        cell("redrawn-noise", seed=s).name for s in (0, 1)
    ]
    for point in found["points"]:
        assert -1 <= point["Z"]["cosine"] < 0.999 and point["c"]["length"] > 0


def test_a_record_of_other_settings_is_refused(digits, tmp_path):
    one = Difference("noise", cell("redrawn-noise"), cell())
    write_json(
        file := tmp_path / "record.json", {"points": [{"name": one.changed.name, "key": ""}]}
    )
    with pytest.raises(InputError, match="with other settings or images; move it away"):
        measure(file, digits, differences=(one,), seeds=[0], runs=tmp_path, progress=False)


def test_means_are_over_seeds(tmp_path):
    file, one = tmp_path / "record.json", cell("ancestral").name
    assert gradient_means(file) == {}
    points = [
        {"name": name, "Z": {"cosine": z, "length": length}, "c": {"cosine": 1.0, "length": 0.0}}
        for name, z, length in ((one, 0.5, 1.0), (f"{one}-seed1", 0.7, 4.0))
    ]
    write_json(file, {"points": points})
    found = gradient_means(file)
    assert found[one, "Z"].cosine == pytest.approx(0.6)
    assert found[one, "Z"].length == pytest.approx(2.0)  # the geometric mean
    assert found[one, "c"].length == 0 and len(found) == 2

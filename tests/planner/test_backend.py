"""The backend that a probe of the machine chooses."""

from dataclasses import replace

import pytest
import torch

from ld3m_min.backprop import AUTO, Plan
from ld3m_min.errors import InputError
from ld3m_min.planner import backend
from ld3m_min.presets import preset
from ld3m_min.run import distil
from ld3m_min.synthetic import SyntheticSet

PROBING = replace(AUTO, probe=True)


@pytest.fixture
def chosen(monkeypatch, tiny_prior):
    """What is chosen on a machine where backends take given seconds, for a number of iterations."""

    def choose(seconds, iterations=10, products=True, compiles=True):
        asked = []

        def probe(prior, config, plan, **options):
            asked.append((plan.precision, plan.compile))
            return seconds[plan.precision, plan.compile]

        ran = {"denoiser": {"compile": "default" if compiles else "off"}}
        monkeypatch.setattr(backend, "probe", probe)
        monkeypatch.setattr(backend, "low_products_pay", lambda: products)
        monkeypatch.setattr(backend, "backend_of", lambda prior, plan: ran)
        plan = backend.probed(tiny_prior, preset("smoke", iterations=iterations, plan=PROBING))
        assert not plan.probe and plan.auto
        return plan.precision, plan.compile, asked

    return choose


TIMES = {
    ("float32", "off"): 1.0,
    ("bfloat16", "off"): 0.5,
    ("float32", "default"): 0.7,
    ("bfloat16", "default"): 0.3,
}


def test_the_fastest_backend_is_chosen(chosen):
    assert chosen(TIMES)[:2] == ("bfloat16", "off")
    assert chosen(TIMES, iterations=10_000)[:2] == ("bfloat16", "default")


def test_bfloat16_is_not_even_tried_where_products_are_slow_in_it(chosen):
    precision, _, asked = chosen(TIMES, products=False)
    assert precision == "float32" and asked == [("float32", "off")]


def test_what_gains_little_is_left(chosen):
    even = {k: 1.0 for k in TIMES}
    assert chosen(even, iterations=10_000)[:2] == ("float32", "off")


def test_a_compiler_that_failed_is_not_chosen(chosen):
    assert chosen(TIMES, iterations=10_000, compiles=False)[:2] == ("bfloat16", "off")


def test_nothing_is_tried_on_a_gpu(tiny_prior):
    config = preset("smoke", plan=PROBING)
    assert backend.probed(tiny_prior, config, device="cuda") == AUTO


def test_the_probe_of_products_answers():
    assert backend.low_products_pay() in (True, False)


def test_probe_and_a_given_backend_do_not_go_together():
    with pytest.raises(InputError, match="chooses precision and compile itself"):
        Plan(probe=True, precision="bfloat16")


@pytest.mark.parametrize("low", [True, False])
def test_a_run_says_which_backend_it_had_and_goes_on_with_another(
    digits, tiny_prior, tmp_path, monkeypatch, low
):
    monkeypatch.setattr(backend, "low_products_pay", lambda: low)
    times = {"float32": 1.0, "bfloat16": 0.5}
    monkeypatch.setattr(backend, "probe", lambda p, c, plan, **k: times[plan.precision])
    config = preset("smoke", plan=PROBING, iterations=1)
    arguments = {"data": digits, "prior": tiny_prior, "out": tmp_path, "progress": False}
    distil(config, **arguments)
    monkeypatch.setattr(backend, "low_products_pay", lambda: not low)
    made = distil(replace(config, iterations=2), **arguments)
    assert made.recipe["plan"]["precision"] == ("float32" if low else "bfloat16")
    assert not made.recipe["plan"]["probe"] and made.recipe["config"]["plan"]["probe"]
    loaded = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(loaded.regenerate(tiny_prior), made.images())

"""Gradient norms over the steps: against closed forms, and a record that is gone on with."""

import json
import math
from dataclasses import replace

import pytest
import torch

from ld3m_min.distillers.dm import distribution_matching_loss
from ld3m_min.errors import InputError
from ld3m_min.experiments import gradient_norms
from ld3m_min.experiments.gradient_norms import (
    Norms,
    Start,
    gains,
    measure,
    norms,
    routes,
    slope,
    table,
)
from ld3m_min.presets import preset
from ld3m_min.residual import INTO, NO_RESIDUAL, PAPER_RESIDUAL, Residual
from ld3m_min.sampler import SamplerConfig
from tests.test_sampler import closed_form

CONFIG = preset("smoke")


def at(linear_prior, codes):
    """A start whose dL/dS is random, of norm 1, at a prior whose images are latents and a zero."""
    prior, (Z, c, noise) = linear_prior(), codes
    prior.decode = lambda z: torch.cat([z, torch.zeros_like(z[:, :1])], 1)
    shape, g = (len(Z), 3, *Z.shape[2:]), torch.Generator().manual_seed(1)
    v = torch.randn(shape, generator=g, dtype=Z.dtype)
    return Start(prior, Z.detach(), c.detach(), noise, v / v.norm())


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_norms_of_a_linear_predictor_are_those_of_its_closed_form(linear_prior, codes, into, decay):
    """z_0 = A Z + N noise + C(c), so dL/dZ is A times dL/dS, and dL/dc is C's derivative."""
    (Z, c, noise), start = codes, at(linear_prior, codes)
    config = SamplerConfig(steps=10, residual=Residual(into, "clean", decay))
    found = norms(start, config)
    A, _, C = closed_form(start.prior, Z, c, noise, config)
    seen = start.cotangent[:, :2]  # the third channel is constant
    (grad_c,) = torch.autograd.grad((C * seen.sum((1, 2, 3))).sum(), c)
    assert pytest.approx(abs(A) * seen.norm().item(), rel=1e-9) == found.Z
    assert found.c == pytest.approx(grad_c.norm().item(), rel=1e-9)


def test_a_single_step_of_the_paper_has_no_gradient_of_c(linear_prior, codes):
    """Its weight is 1: z_0 is z_T, which is sqrt(gamma) Z and more."""
    start = at(linear_prior, codes)
    found = norms(start, SamplerConfig(steps=1, residual=PAPER_RESIDUAL))
    expected = float(start.prior.alpha_bar[1]) ** 0.5 * start.cotangent[:, :2].norm().item()
    assert pytest.approx(expected) == found.Z and found.c == 0


def test_the_loss_is_dms_at_the_real_images(digits, tiny_prior):
    """The cotangent points along the gradient of the losses of all classes, one by one."""
    found = gradient_norms.start(CONFIG, digits, tiny_prior)
    assert found.cotangent.norm() == pytest.approx(1, rel=1e-5)
    config = replace(CONFIG, algorithm="DM")
    dm = gradient_norms.DISTILLERS["DM"](config, digits, torch.device("cpu"))
    images = gradient_norms.draw_initial_images(digits, 1, 0).images.requires_grad_()
    network = dm.network(0).requires_grad_(False)
    pairs = [dm.pair(images[k : k + 1], k, 0) for k in range(10)]
    sum(distribution_matching_loss(network, p.real, p.synthetic) for p in pairs).backward()
    along = (images.grad / images.grad.norm() * found.cotangent).sum()
    assert along == pytest.approx(1, abs=1e-4)
    assert torch.allclose(found.Z, tiny_prior.encode(images.detach()), atol=1e-5)
    other = gradient_norms.start(replace(CONFIG, seed=1), digits, tiny_prior)
    assert not torch.equal(found.noise, other.noise)


def test_routes_have_each_source_and_each_decay_once():
    found = routes()
    assert len(set(found)) == len(found) == 19 and found[0] == PAPER_RESIDUAL
    assert NO_RESIDUAL in found and {r.source for r in found} == {"noised", "clean"}
    for into, own in (("mean", "noised"), ("x0", "clean"), ("noise", "clean")):
        assert {r.decay for r in found if (r.into, r.source) == (into, own)} == {
            "linear", "cosine", "sqrt", "exponential", "constant",
        }  # fmt: skip
        assert {r.source for r in found if r.into == into} == {"noised", "clean"}


def test_a_record_is_gone_on_with(digits, tiny_prior, tmp_path, monkeypatch):
    file, asked, options = tmp_path / "r.json", [], {"steps": (2, 4), "progress": False}
    residuals = [PAPER_RESIDUAL, NO_RESIDUAL]
    monkeypatch.setattr(
        gradient_norms, "norms", lambda start, s: asked.append(s) or Norms(1 / s.steps, 3.0)
    )

    def go(**more):
        asked.clear()
        return measure(file, CONFIG, digits, tiny_prior, residuals=residuals, **(options | more))

    whole = go(seeds=[0])
    assert [(s.residual, s.steps) for s in asked] == [(r, T) for r in residuals for T in (2, 4)]
    assert all(s.guidance_scale == CONFIG.sampler.guidance_scale for s in asked)
    assert whole == json.loads(file.read_text()) and len(whole["points"]) == 4
    assert whole["environment"]["torch"] and whole["prior"]["digest"] == tiny_prior.digest
    # what is there stays; a point that is missing is measured
    file.write_text(json.dumps(whole | {"points": whole["points"][1:]}))
    again = go(seeds=[0, 1])
    assert (asked[0].residual, asked[0].steps) == (PAPER_RESIDUAL, 2) and len(asked) == 5
    assert sorted(map(str, again["points"][:4])) == sorted(map(str, whole["points"]))
    assert {p["seed"] for p in again["points"]} == {0, 1}
    assert go(seeds=[0, 1]) == again and not asked
    with pytest.raises(InputError, match="another configuration, prior or data set"):
        measure(file, replace(CONFIG, seed=7), digits, tiny_prior, **options)


def test_a_measured_record_is_finite_and_repeats(digits, tiny_prior, tmp_path):
    options = {"residuals": [Residual("noise", "clean")], "steps": (2,), "seeds": [0]}
    found = [
        measure(tmp_path / name, CONFIG, digits, tiny_prior, progress=False, **options)["points"]
        for name in "ab"
    ]
    assert found[0] == found[1] and len(found[0]) == 1
    assert found[0][0]["grad_Z"] > 0 and found[0][0]["grad_c"] > 0


def test_slope_by_hand():
    assert slope([5, 10, 20], [8, 4, 2]) == pytest.approx(-1)
    assert slope([1, 10, 100], [3, 3, 3]) == pytest.approx(0)
    # log values 0, 0, 1 over log T 0, 1, 2: least squares has the slope 1/2
    assert slope([1, math.e, math.e**2], [1, 1, math.e]) == pytest.approx(0.5)
    # the paper's version 4, table 1, whose slope is -0.94
    printed = [58.1, 33.5, 19.8, 15.4, 13.9, 12.1, 10.4, 8.7, 6.5]
    assert round(slope(range(10, 100, 10), printed), 2) == -0.94
    assert math.isnan(slope([5, 5], [1, 2])) and math.isnan(slope([5, 10], [1, 0]))


def test_gains_by_hand():
    def point(seed, T, residual, norm):
        place = {"into": residual.into, "source": residual.source, "decay": residual.decay}
        return place | {"seed": seed, "T": T, "grad_Z": norm, "grad_c": 10 * norm}

    record = {
        "points": [
            point(0, 10, PAPER_RESIDUAL, 3.0),
            point(0, 10, NO_RESIDUAL, 2.0),
            point(1, 10, PAPER_RESIDUAL, 8.0),
            point(1, 10, NO_RESIDUAL, 2.0),
            point(2, 10, PAPER_RESIDUAL, 8.0),  # its other half is not measured
            point(3, 10, NO_RESIDUAL, 0.0),
            point(3, 10, PAPER_RESIDUAL, 1.0),
            point(0, 5, PAPER_RESIDUAL, 100.0),
        ]
    }
    assert gains(record, 10) == gains(record, 10, "c") == [1.5, 4.0] and gains(record, 5) == []


def test_table_by_hand():
    points = [
        {"into": "mean", "source": "noised", "decay": "linear", "T": T, "seed": s,
         "grad_Z": (1 + 3 * s) * T**p, "grad_c": 1.0}
        for s, p in ((0, -1.0), (1, -2.0))
        for T in (10, 100)
    ]  # fmt: skip
    # a seed that lacks a T counts nowhere, and a route of which no seed has them all isn't shown
    points += [points[0] | {"seed": 2}, points[0] | {"into": "x0"}]
    assert len(table({"points": points})) == 1 and table({"points": points[-2:]}).index.nlevels == 3
    row = table({"points": points}).loc[("mean", "noised", "linear")]
    # geometric means of 1/10 and 4/100, and of 1/100 and 4/10000
    assert row[10] == pytest.approx(math.sqrt(0.1 * 0.04))
    assert row[100] == pytest.approx(math.sqrt(0.01 * 0.0004))
    assert (row["slope"], row["least"], row["greatest"]) == pytest.approx((-1.5, -2, -1))
    assert row["seeds"] == 2
    assert table({"points": points}, "c").iloc[0]["slope"] == pytest.approx(0)

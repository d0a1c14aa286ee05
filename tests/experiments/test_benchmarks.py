"""The benchmarks measure what they say.

The re-created public schedule has our gradient, and every row is really run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import generator, public_schedule
from benchmarks.__main__ import missing
from benchmarks.cases import CASES, Case, cin256
from ld3m_min.backprop import generate_with_plan
from ld3m_min.experiments import grids
from ld3m_min.io.files import read_json
from ld3m_min.planner.forecast import codes
from ld3m_min.presets import preset
from ld3m_min.sampler import SamplerConfig

ROOT = Path(__file__).parents[2]


def test_the_public_schedule_has_the_same_gradient(tiny_prior):
    """In float64, over several chunks, with blocks recomputed and differentiated for nothing."""
    prior = tiny_prior.to(dtype=torch.float64)
    config = preset("smoke", ipc=2, sampler=SamplerConfig(steps=3))
    Z, c, noise = (x.detach().double() for x in codes(prior, config, "cpu"))
    weight = torch.linspace(-1, 1, 20, dtype=torch.float64).view(-1, 1, 1, 1)
    found = []
    for public in (False, True):
        z, k = Z.clone().requires_grad_(), c.clone().requires_grad_()
        if public:
            twin = public_schedule.as_public(prior)
            public_schedule.backward_through(
                twin, z, k, noise, config.sampler, lambda images: weight.expand_as(images)
            )
            assert all(p.grad is None for p in twin.denoiser.parameters())
        else:
            (generate_with_plan(prior, z, k, noise, config.sampler) * weight).sum().backward()
        found.append((z.grad, k.grad))
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * ours.abs().max()
    # the prior itself stays frozen
    assert not any(p.requires_grad for p in prior.denoiser.parameters())


def test_a_measurement(tiny_prior, monkeypatch):
    monkeypatch.setattr(generator, "load", lambda case, device: tiny_prior)
    case = Case("tiny", "tiny", "cpu", preset("smoke", sampler=SamplerConfig(steps=3)))
    record = generator.measure(
        case, "cpu", repeats=2, names=(generator.SCHEDULE, "one-pass", "per-step")
    )
    rows = record["rows"]
    assert list(rows) == [generator.SCHEDULE, "one-pass", "per-step"] and record["images"] == 10
    for row in rows.values():
        assert (
            len(row["seconds"]) == 2
            and row["median"] > 0
            and row["peak_bytes"] > 0
            and row["ratio"] > 0
        )
    assert rows["per-step"]["peak_bytes"] < rows["one-pass"]["peak_bytes"]
    assert all(
        row["cosine"] > 1 - 1e-6 and row["relative_difference"] < 1e-4 for row in rows.values()
    )
    for row in (rows["one-pass"], rows["per-step"]):
        assert (
            row["forecast_bytes"] == pytest.approx(row["peak_bytes"], rel=0.2)
            and row["forecast_seconds"] > 0
        )
    json.dumps(record)


def test_what_does_not_fit_is_said_and_not_tried(tiny_prior, monkeypatch):
    monkeypatch.setattr(generator, "load", lambda case, device: tiny_prior)
    monkeypatch.setattr(generator, "device_bytes", lambda device: 1000)
    case = Case("tiny", "tiny", "cpu", preset("smoke"))
    row = generator.measure(case, "cpu", repeats=1, names=("one-pass",))["rows"]["one-pass"]
    assert row["fits"] is False and "median" not in row and row["forecast_bytes"] > 1000


def test_the_large_case_has_the_released_priors_size():
    networks = cin256("meta").modules
    assert [sum(p.numel() for p in m.parameters()) for m in networks[:2]] == [
        55_322_782,
        400_920_579,
    ]
    assert {
        (c.config.size, c.config.ipc, c.config.sampler.steps)
        for c in CASES.values()
        if c.device == "cuda"
    } == {(s, i, t) for s in (128, 256) for i in (1, 10) for t in (10, 20)}


def test_missing_measurements_are_listed_with_their_commands(tmp_path):
    listed = dict(missing(tmp_path))
    assert set(CASES) < set(listed) and listed["cin256-128px-ipc1-T10"] == (
        "python -m benchmarks --case cin256-128px-ipc1-T10 --device cuda"
    )
    (tmp_path / "bench-scaling.json").write_text("{}")
    assert "scaling" not in dict(missing(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--missing", "--records", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert f"bench-iterations:  {listed['iterations']}" in done.stdout


def test_the_grids_list_what_can_be_measured(tmp_path):
    """They read names and commands from a file, which holds all there is, in its order."""
    listed = missing(tmp_path)
    assert list(read_json(grids.BENCHMARKS).items()) == listed
    lines = [line for line in grids.commands(folder=tmp_path) if line.startswith("bench-")]
    assert lines == [f"bench-{name}:  {command}" for name, command in listed]
    (tmp_path / "bench-scaling.json").write_text("{}")
    assert not [x for x in grids.commands(folder=tmp_path) if x.startswith("bench-scaling")]

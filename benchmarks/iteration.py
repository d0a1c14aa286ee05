"""A whole iteration, loss included, and how its cost grows.

The cost is measured against T, the number of images and MTT's inner steps.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from statistics import median

import torch

from ld3m_min.backprop import PLANS, generate_with_plan
from ld3m_min.data import load_data
from ld3m_min.distillers import DISTILLERS, trajectory_matching_loss
from ld3m_min.experts import train_experts
from ld3m_min.io.environment import environment
from ld3m_min.networks import build_network, flat_parameters
from ld3m_min.planner.counter import Counter
from ld3m_min.planner.forecast import codes, weights_of
from ld3m_min.planner.seconds import seconds_of
from ld3m_min.presets import preset

from . import public_schedule
from .cases import CASES, load, smaller

LENGTHS = (5, 10, 20)


def iterations(device, *, repeats=5):
    """Seconds of one iteration of DC, DM and MTT, ours against the public schedule.

    On the digits, with the shipped prior.
    """
    prior, data = load(CASES["digits-ipc1-T10"], device), load_data("digits").to(device)
    with tempfile.TemporaryDirectory() as scratch:
        rows = {a: _one_algorithm(a, prior, data, device, repeats, scratch) for a in DISTILLERS}
    return {
        "schema": 1,
        "bench": "iterations",
        "device": torch.device(device).type,
        "rows": rows,
        "environment": environment(device),
    }


def _one_algorithm(algorithm, prior, data, device, repeats, scratch):
    config, options = preset("cpu", algorithm=algorithm), {}
    if algorithm == "MTT":
        config = replace(config, mtt=replace(config.mtt, experts=1))
        options = {"experts": train_experts(config, data, scratch, device=device, progress=False)}
    ours = DISTILLERS[algorithm](config, data, device, **options)
    public_config = replace(config, mtt=replace(config.mtt, gradient="approximate"))
    theirs = public_schedule.PUBLIC[algorithm](public_config, data, device, **options)
    public = public_schedule.as_public(prior)
    Z, c, noise = codes(prior, config, device)
    labels = torch.arange(len(Z), device=device)

    def loss_gradient(distiller, images):
        leaf = images.detach().requires_grad_()
        distiller.step(leaf, labels, 0)
        return leaf.grad

    def our_iteration():
        images = generate_with_plan(prior, Z, c, noise, config.sampler)
        images.backward(loss_gradient(ours, images))

    def public_iteration():
        fresh = (x.detach().requires_grad_() for x in (Z, c))
        public_schedule.backward_through(
            public, *fresh, noise, config.sampler, lambda images: loss_gradient(theirs, images)
        )

    times = {"ours": [], "public": []}
    for _ in range(repeats):
        for name, function in (("ours", our_iteration), ("public", public_iteration)):
            times[name].append(seconds_of(function, device, repeats=1, warm=not times[name]))
    return times | {"ratio": median(times["public"]) / median(times["ours"])}


def scaling(device, *, repeats=5):
    """Seconds and peak bytes against T and against the number of images.

    Of MTT's loss against its inner steps.
    """
    case = CASES["digits-ipc1-T10"]
    prior = load(case, device)
    weights = weights_of(prior, PLANS["one-pass"])
    found = {"T": [], "images": [], "inner steps": []}

    def add(axis, value, name, function):
        with Counter(weights) as counter:
            function()
        times = [seconds_of(function, device, repeats=1, warm=False) for _ in range(repeats)]
        row = {axis: value, "plan": name, "seconds": times, "peak_bytes": counter.peak}
        found[axis].append(row)

    def generation(config, plan):
        Z, c, noise = codes(prior, config, device)
        return lambda: generate_with_plan(prior, Z, c, noise, config.sampler, plan).sum().backward()

    for name in ("one-pass", "per-step"):
        for steps in LENGTHS:
            add("T", steps, name, generation(smaller(case.config, steps), PLANS[name]))
        for ipc in (1, 2, 4):
            add("images", 10 * ipc, name, generation(replace(case.config, ipc=ipc), PLANS[name]))
    n = case.config.network
    network = build_network(
        n.name, size=32, width=n.width, generator=torch.Generator().manual_seed(0)
    ).to(device)
    theta, lr = flat_parameters(network), torch.tensor(0.02, device=device, requires_grad=True)
    images, labels = (
        torch.rand(10, 3, 32, 32, device=device, requires_grad=True),
        torch.arange(10, device=device),
    )
    for steps in LENGTHS:
        add(
            "inner steps",
            steps,
            "exact",
            lambda steps=steps: trajectory_matching_loss(
                network, theta, theta + 0.1, images, labels, lr, steps
            ).backward(),
        )
    return {
        "schema": 1,
        "bench": "scaling",
        "device": torch.device(device).type,
        "rows": found,
        "environment": environment(device),
    }

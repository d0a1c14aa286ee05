"""How fast networks are trained and passed.

Evaluation, experts, the real passes of DC and DM; each against its loop.

    python -m benchmarks.networks --out book/_data/records/bench-networks-cpu.json

Each function returns a dict with seconds (median, least, most), the ratio and whether the results
are equal. Seconds are of the wall clock; `cpu` is the processor time of the same, which another
process on the machine changes less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from ld3m_min.config import ARCHITECTURES
from ld3m_min.data import load_data
from ld3m_min.distillers import DC, DM, MTT
from ld3m_min.evaluate import evaluate
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experts import train_experts
from ld3m_min.experts.train import train_expert
from ld3m_min.io.environment import environment
from ld3m_min.io.files import read_json, write_json
from ld3m_min.networks import build_network
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import random_real
from ld3m_min.training import Group

from .public_schedule import DCByClass, DMByClass


def timed(*functions, repeats=5, enough=20.0):
    """Wall and processor seconds of functions that are called in turn, and the last result of each.

    Three turns are enough where one call takes longer than `enough` seconds.
    """
    wall, cpu, results = ([[] for _ in functions] for _ in range(3))
    turn = 0
    while turn < repeats and not (turn >= 3 and max(max(w) for w in wall) > enough):
        for i, function in enumerate(functions):
            began, began_cpu = time.perf_counter(), time.process_time()
            results[i] = function()
            wall[i].append(time.perf_counter() - began)
            cpu[i].append(time.process_time() - began_cpu)
        turn += 1
    spread = [
        {
            "median": round(statistics.median(w), 4),
            "min": round(min(w), 4),
            "max": round(max(w), 4),
            "cpu": round(statistics.median(c), 4),
            "runs": len(w),
        }
        for w, c in zip(wall, cpu, strict=True)
    ]
    return spread, results


def _compared(loop, ours):
    return {
        "loop": loop,
        "ours": ours,
        "ratio": round(loop["median"] / ours["median"], 2),
        "cpu ratio": round(loop["cpu"] / ours["cpu"], 2),
    }


def evaluation(data, *, repeats=2, architectures=ARCHITECTURES, runs=5, epochs=None):
    """The quickstart's evaluation (preset cpu, ten real images).

    One after the other against side by side. "threads" is what PyTorch was given; the loop uses
    them in each step, the other trains as many networks at a time.
    """
    synthetic = random_real(preset("cpu"), data=data)
    protocol = eval_preset("cpu", repeats=repeats, **({"epochs": epochs} if epochs else {}))
    rows = {}
    for name in (*((a,) for a in architectures), tuple(architectures)):

        def run(plain, name=name):
            return evaluate(synthetic, data, name, config=protocol, plain=plain)

        (loop, ours), (a, b) = timed(
            lambda run=run: run(True), lambda run=run: run(False), repeats=runs
        )
        images = [
            round(abs(x - y) * len(data.test))
            for n in name
            for x, y in zip(a.accuracies[n], b.accuracies[n], strict=True)
        ]
        rows["total" if len(name) > 1 else name[0]] = {
            **_compared(loop, ours),
            "images judged otherwise": images,
            "accuracies": {n: [list(a.accuracies[n]), list(b.accuracies[n])] for n in name},
        }
    return {
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "epochs": protocol.epochs,
        **rows,
    }


def experts(data, *, count=4, runs=5):
    """Expert trajectories of the preset cpu.

    One by one in the plain loop against `train_experts`.
    """
    config = preset("cpu", algorithm="MTT")
    config = replace(config, mtt=replace(config.mtt, experts=count))

    def loop():
        return [train_expert(config, data, i) for i in range(count)]

    def together():
        with tempfile.TemporaryDirectory() as folder:
            buffer = train_experts(config, data, folder, progress=False)
            last = buffer.description["train_epochs"]
            return [buffer.read(i, range(last + 1)) for i in range(count)]

    (one, ours), (a, b) = timed(loop, together, repeats=runs)
    away = max(float((x - y).norm() / (x - x[0]).norm()) for x, y in zip(a, b, strict=True))
    return {
        "threads": torch.get_num_threads(),
        "experts": count,
        "epochs": config.mtt.max_start_epoch + config.mtt.expert_epochs,
        **_compared(one, ours),
        "experts per minute": round(60 * count / ours["median"], 1),
        "relative difference": away,
    }


def distillers(data, *, ipc=1, runs=5):
    """Whole steps of DC and DM, and their passes: all classes at once against class by class."""
    images = random_real(preset("cpu", ipc=ipc), data=data)
    x, labels, rows = images.images().detach(), images.labels, {}

    def step(distiller):
        leaf = x.clone().requires_grad_()
        return distiller.step(leaf, labels, 0), leaf.grad

    for kind, by_class in ((DC, DCByClass), (DM, DMByClass)):
        config = preset("cpu", algorithm=kind.__name__, ipc=ipc)
        distiller, slow = kind(config, data), by_class(config, data)
        (loop, fast), ((la, ga), (lb, gb)) = timed(
            lambda d=slow: step(d), lambda d=distiller: step(d), repeats=runs
        )
        rows[f"{kind.__name__} step"] = {
            **_compared(loop, fast),
            "relative difference of the loss": float((la - lb).abs() / la),
            "relative difference of the gradient": float((ga - gb).norm() / ga.norm()),
        }
    pairs = distiller.pairs(x, labels, 0)
    network = distiller.network(0)
    params = {k: v.detach() for k, v in network.named_parameters()}
    real = pairs.real.unflatten(0, (len(pairs.classes), -1))
    y = torch.tensor(pairs.classes)[:, None].expand(real.shape[:2])

    @torch.no_grad()
    def embed_by_class():
        return torch.stack([network.embed(r).mean(0) for r in real])

    @torch.no_grad()
    def embed_all():
        return network.embed(pairs.real).unflatten(0, real.shape[:2]).mean(1)

    def gradients_by_class():
        weights = list(network.parameters())
        return [
            torch.autograd.grad(F.cross_entropy(network(a), b), weights)
            for a, b in zip(real, y, strict=True)
        ]

    def loss(p, a, b):
        return F.cross_entropy(functional_call(network, p, (a,)), b)

    def gradients_at_once():
        return list(vmap(grad(loss), in_dims=(None, 0, 0))(params, real, y).values())

    (loop, fast), (a, b) = timed(embed_by_class, embed_all, repeats=runs)
    rows["DM, real features in one pass"] = {
        **_compared(loop, fast),
        "relative difference": float((a - b).norm() / a.norm()),
    }
    (loop, fast), (a, b) = timed(gradients_by_class, gradients_at_once, repeats=runs)
    a = [torch.stack(same) for same in zip(*a, strict=True)]
    away = max(float((s - t).norm() / s.norm()) for s, t in zip(a, b, strict=True) if s.dim() > 2)
    rows["DC, real gradients by vmap(grad)"] = {
        **_compared(loop, fast),
        "relative difference": away,
    }
    return {
        "threads": torch.get_num_threads(),
        "ipc": ipc,
        "real images per class": real.shape[1],
        **rows,
    }


def ways(*, networks=5, images=10, size=32, steps=20, runs=5):
    """Training steps of several networks of one kind, as `training.Group` can make them.

    Stacked, and channels-last. The loop is one network after the other, in PyTorch's own format.
    ResNet18 is never stacked (batch normalisation).
    """
    protocol, rows = eval_preset("cpu"), {}
    g = torch.Generator().manual_seed(0)
    x = torch.randn(networks, images, 3, size, size, generator=g)
    y = torch.randint(10, (networks, images), generator=g)

    def trained(name, stacked, channels_last):
        made = [
            build_network(
                name, size=size, width=protocol.width, generator=torch.Generator().manual_seed(i)
            ).train()
            for i in range(networks)
        ]
        group = Group(
            [n.to(memory_format=torch.channels_last) for n in made] if channels_last else made,
            stacked=stacked,
        )
        for _ in range(steps):
            group.step(x, y, 0.001)
        return group.flat()

    for name in ARCHITECTURES:
        tried = {"stacked": (True, False), "channels-last": (False, True)}
        if name == "ResNet18":
            tried.pop("stacked")
        (loop, *others), _ = timed(
            lambda name=name: trained(name, False, False),
            *(lambda name=name, w=w: trained(name, *w) for w in tried.values()),
            repeats=runs,
        )
        rows[name] = {way: _compared(loop, ours) for way, ours in zip(tried, others, strict=True)}
    return {
        "threads": torch.get_num_threads(),
        "networks": networks,
        "images": images,
        "steps": steps,
        **rows,
    }


def trajectories(data, *, steps=(5, 10, 20), runs=5):
    """Seconds of one MTT iteration against its inner steps: they grow linearly."""
    config = preset("cpu", algorithm="MTT")
    small = replace(config, mtt=replace(config.mtt, experts=1))
    images = random_real(preset("cpu"), data=data)
    with tempfile.TemporaryDirectory() as folder:
        buffer = train_experts(small, data, folder, progress=False)
        found = {}
        for n in steps:
            distiller = MTT(replace(small, mtt=replace(small.mtt, steps=n)), data, experts=buffer)

            def step(distiller=distiller):
                return distiller.step(images.images().detach().requires_grad_(), images.labels, 0)

            (seconds,), _ = timed(step, repeats=runs)
            found[str(n)] = seconds
    return {"threads": torch.get_num_threads(), "seconds by inner steps": found}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RECORDS / "bench-networks-cpu.json")
    parser.add_argument(
        "--runs",
        type=int,
        default=5,
        help="of each measurement; 3 where one takes longer than 20 seconds",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        nargs="+",
        default=[2, 5],
        help="of the evaluation: the quickstart's, the table's",
    )
    parser.add_argument(
        "--epochs", type=int, default=None, help="of the evaluation; default: the protocol's"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=["evaluation", "experts", "distillers", "ways", "MTT"],
        help="parts to measure",
    )
    given = parser.parse_args()
    data = load_data("digits")
    parts = {
        f"evaluation, {r} repeats": lambda r=r: evaluation(
            data, repeats=r, runs=given.runs, epochs=given.epochs
        )
        for r in given.repeats
    }
    parts |= {
        "experts": lambda: experts(data, runs=given.runs),
        "distillers": lambda: [distillers(data, ipc=ipc, runs=given.runs) for ipc in (1, 10)],
        "ways": lambda: ways(runs=given.runs),
        "MTT": lambda: trajectories(data, runs=given.runs),
    }
    record = {"schema": 1, "bench": "networks", "environment": environment()}
    if given.only != parser.get_default("only") and given.out.exists():
        # some parts anew, the others kept
        record = read_json(given.out) | {"environment": environment()}
    for name, measure in parts.items():
        if name.split(",")[0] in given.only:
            record[name] = measure()
            write_json(given.out, record)  # after each part: they take minutes
            print(f"{name}: written to {given.out}", flush=True)


if __name__ == "__main__":
    main()

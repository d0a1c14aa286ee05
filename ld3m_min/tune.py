"""A learning-rate search that never sees the test split: for each algorithm and space, on held-out training images.

The paper gives one rate per algorithm, for its prior and its 5,000 iterations; at another size they have to be found
again. Every rate that was tried is recorded, with its cost.
"""
from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from .config import ALGORITHMS, SPACES, eval_preset, preset
from .digests import digest
from .errors import InputError
from .evaluate import evaluate
from .experts import experts_name, train_experts
from .prior import LatentDiffusionPrior
from .progress import bar
from .results import RECORDS, RUNS, environment, prior_path
from .run import distil
from .signals import stoppable
from .storage import read_json, write_json

RATES = {  # digits, preset "cpu": a factor of about three apart, around where each loss falls
    ("DC", "pixel"): (0.03, 0.1, 0.3),
    ("DC", "autoencoder"): (0.03, 0.1, 0.3),
    ("DC", "ld3m"): (0.03, 0.1, 0.3, 1.0),
    ("DM", "pixel"): (0.01, 0.03, 0.1),
    ("DM", "autoencoder"): (0.03, 0.1, 0.3),
    ("DM", "ld3m"): (0.03, 0.1, 0.3),
    ("MTT", "pixel"): (1.0, 3.0, 10.0, 30.0, 100.0),
    ("MTT", "autoencoder"): (3.0, 10.0, 30.0, 100.0),
    ("MTT", "ld3m"): (3.0, 10.0, 30.0, 100.0),
}
NETTE_RATES = {  # ImageNette, preset "nette": powers of ten around the paper's 1e-3, 1e-2 and 10, upwards, where the public
    # code's defaults are (0.1, 1 and 1000)
    ("DC", "pixel"): (0.01, 0.1, 1.0),
    ("DC", "autoencoder"): (0.001, 0.01, 0.1, 1.0),
    ("DC", "ld3m"): (0.001, 0.01, 0.1, 1.0),
    ("DM", "pixel"): (0.01, 0.1, 1.0),
    ("DM", "autoencoder"): (0.01, 0.1, 1.0),
    ("DM", "ld3m"): (0.01, 0.1, 1.0),
    ("MTT", "pixel"): (10.0, 100.0, 1000.0),
    ("MTT", "autoencoder"): (10.0, 100.0, 1000.0),
    ("MTT", "ld3m"): (10.0, 100.0, 1000.0),
}
JUDGES = ("ConvNet", "AlexNet", "VGG11")


def rates_of(name):
    """The rates that a search under preset `name` tries, by (algorithm, space)."""
    return NETTE_RATES if name.startswith("nette") else RATES


def search(name, data, *, records=RECORDS, runs=RUNS, rates=None, repeats=1, iterations=None, only="", device="cpu",
           progress=True):
    """Try every rate of `rates` (`rates_of(name)`) under preset `name`; returns {(algorithm, space): best rate}.

    Each try is distilled as the preset says and judged on the validation split by `JUDGES`, `repeats` times. The record
    `tune-<data>-<preset>.json` grows try by try, and a try keeps its checkpoints below `runs`: a stopped search goes on.

    Args:
        iterations: of a try; None takes the preset's. only: "DM-ld3m" for one algorithm and space; "" for all.

    Raises:
        ValueError: `only` names nothing. Interrupted: it was asked to stop; what was tried is in the record.
    """
    rates = rates_of(name) if rates is None else rates
    if only and only not in (known := [f"{a}-{s}" for a, s in rates]):
        raise InputError(f"nothing to search called {only!r}; choose {', '.join(known)}")
    file = Path(records) / f"tune-{data.name}-{name}.json"
    tried = read_json(file)["tries"] if file.exists() else []
    content = {"train": data.train.digest, "validation": data.validation.digest}
    protocol, prior = eval_preset(name, split="validation", repeats=repeats), None
    changes = {"dataset": data.name} | ({} if iterations is None else {"iterations": iterations})

    def key(algorithm, space, lr):
        """All that a try's result depends on but the prior's weights, which are looked at below."""
        config = preset(name, algorithm=algorithm, space=space, lr=lr, **changes)
        return digest([asdict(config), asdict(protocol), list(JUDGES), content])

    if any("key" not in t for t in tried):
        raise InputError(f"{file} was made by a version that didn't note what a try depends on; move it away, and search again")
    priors = {t["prior"] for t in tried if t["prior"]}
    done = {t["key"] for t in tried}
    todo = [(a, s, lr) for a in ALGORITHMS for s in SPACES for lr in rates.get((a, s), ())
            if key(a, s, lr) not in done and only in ("", f"{a}-{s}")]
    data = data.to(device)
    for algorithm, space, lr in bar(todo, desc="tries", show=progress):
        with stoppable() as stop:
            if stop.reason:
                stop.leave(f"{len(tried)} tries are in the record")
        config, experts = preset(name, algorithm=algorithm, space=space, lr=lr, **changes), None
        folder = Path(runs) / f"tune-{data.name}-{name}" / f"{key(algorithm, space, lr)[:16]}"
        if algorithm == "MTT":
            experts = train_experts(config, data, Path(runs) / experts_name(config, data), device=device, progress=progress)
        if space != "pixel" and prior is None:
            prior = LatentDiffusionPrior.from_pretrained(prior_path(config.prior), device=device)
            if priors - {prior.networks_digest}:
                raise InputError(f"{file} holds tries with another prior of the name {config.prior!r}; move it away, and search again")
        began = time.monotonic()
        try:
            made = distil(config, data=data, prior=prior, out=folder, experts=experts, device=device, progress=False)
            result = evaluate(made, data, JUDGES, config=protocol)
            accuracies = {a: list(v) for a, v in result.accuracies.items()}
        except FloatingPointError:
            accuracies = None  # diverged: recorded as such
        tried.append({"key": key(algorithm, space, lr), "prior": None if space == "pixel" else prior.networks_digest,
                      "algorithm": algorithm, "space": space, "lr": lr, "accuracies": accuracies, "iterations": config.iterations,
                      "evaluation_lr": protocol.lr, "seconds": round(time.monotonic() - began, 1)})
        write_json(file, {"schema": 1, "tune": name, "dataset": data.name, "split": "validation", "tries": tried,
                          "environment": environment(device)})
    return best_rates(tried)


def best_rates(tried):
    """{(algorithm, space): the rate with the highest mean accuracy of all judges}."""
    best = {}
    for t in tried:
        if t["accuracies"] is None:
            continue
        score = sum(sum(v) / len(v) for v in t["accuracies"].values()) / len(t["accuracies"])
        key = (t["algorithm"], t["space"])
        if key not in best or score > best[key][0]:
            best[key] = (score, t["lr"])
    return {key: lr for key, (_, lr) in best.items()}

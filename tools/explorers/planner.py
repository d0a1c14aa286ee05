"""Memory and work of each plan, as the planner counts them without running anything."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from explorers import output

sys.path.insert(0, str(output.ROOT))

from benchmarks.cases import cin256
from ld3m_min.backprop import ordered_plans
from ld3m_min.config import DistilConfig
from ld3m_min.planner.forecast import forecast
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.sampler import SamplerConfig

# memory and work are straight lines in T for every plan: two forecasts are enough, and a test
# compares others with the lines. T is even, for the plan that halves it, and divides 1,000, or
# there would be more than T steps
TWO = (2, 4)
STEPS = (2, 4, 8, 10, 20, 40, 50, 100)
MODELS = {
    "digits-10": ("digits", 32, 1, "cpu"),
    "digits-20": ("digits", 32, 2, "cpu"),
    "cin256-128": ("cin256", 128, 1, "paper"),
    "cin256-256": ("cin256", 256, 1, "paper"),
}


def counted(prior: LatentDiffusionPrior, config: DistilConfig, steps: int, plan: str) -> list[int]:
    """Bytes at once, weights included, and operations of the generator, forwards and back."""
    config = replace(config, sampler=SamplerConfig(steps=steps))
    found = forecast(
        prior, config, ordered_plans(steps)[plan], device="cuda", matching=False, classes=10
    )
    return [found.peak_bytes, found.weight_bytes, found.flops]


def line(prior: LatentDiffusionPrior, config: DistilConfig, plan: str) -> dict[str, Any]:
    """Of one plan: weights; what is needed at T = 0, and what each step adds."""
    (b0, weights, f0), (b1, _, f1) = (counted(prior, config, T, plan) for T in TWO)
    db, df = (b1 - b0) / (TWO[1] - TWO[0]), (f1 - f0) / (TWO[1] - TWO[0])
    return {
        "weights": weights,
        "bytes": [b0 - TWO[0] * db, db],
        "flops": [f0 - TWO[0] * df, df],
    }


def model(name: str) -> dict[str, Any]:
    """All plans of one model, size and number of images."""
    prior_name, size, ipc, preset_name = MODELS[name]
    prior = (
        cin256("meta")
        if prior_name == "cin256"
        else LatentDiffusionPrior.from_pretrained(prior_name)
    )
    config = preset(preset_name, algorithm="DC", size=size, ipc=ipc)
    plans = {}
    for plan in ordered_plans(10):
        plans[plan] = line(prior, config, plan)
        print(name, plan, plans[plan], flush=True)
    return {"size": size, "images": 10 * ipc, "plans": plans}


def planner() -> None:
    """The lines of every model, and memory against work for one of them."""
    import matplotlib.pyplot as plt

    models = {name: model(name) for name in MODELS}
    output.write_data("planner", {"steps": list(STEPS), "models": models})
    figure, axis = plt.subplots(figsize=(6, 3.4))
    plans = models["cin256-128"]["plans"]
    for plan, row in plans.items():
        x, y = (row[k][0] + 10 * row[k][1] for k in ("flops", "bytes"))
        axis.plot(x / 1e12, (y + row["weights"]) / 2**30, "o")
        axis.annotate(
            plan, (x / 1e12, (y + row["weights"]) / 2**30), (5, 4), textcoords="offset points"
        )
    axis.set(xlabel="work, TFLOP", ylabel="memory, GiB")
    axis.set_ylim(0, None)
    axis.margins(x=0.15)
    axis.grid(alpha=0.3)
    output.write_still("planner", figure)

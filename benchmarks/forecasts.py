"""What the planner says of the released prior's size on a GPU, counted without one."""

from __future__ import annotations

from dataclasses import replace

from ld3m_min.backprop import PLANS
from ld3m_min.io.environment import environment
from ld3m_min.planner.forecast import forecast

from .cases import CASES, cin256

NAMES = (
    "cin256-128px-ipc1-T10",
    "cin256-128px-ipc1-T20",
    "cin256-256px-ipc1-T10",
    "cin256-256px-ipc1-T20",
    "cin256-128px-ipc10-T10",
)


def forecasts(device, *, repeats=None):
    """Peak bytes with weights, and operations, of the generator; nothing is run.

    Under three plans, in two precisions.
    """
    prior, rows = cin256("meta"), []
    for name in NAMES:
        config = CASES[name].config
        for plan in ("one-pass", "selective", "per-step"):
            said = {
                p: forecast(
                    prior, config, replace(PLANS[plan], precision=p), device="cuda", matching=False
                )
                for p in ("float32", "bfloat16")
            }
            rows.append(
                {
                    "size": config.size,
                    "images": 10 * config.ipc,
                    "T": config.sampler.steps,
                    "plan": plan,
                    "flops": said["float32"].flops,
                }
                | {p: f.total_bytes for p, f in said.items()}
            )
    return {"schema": 1, "bench": "forecasts", "rows": rows, "environment": environment()}

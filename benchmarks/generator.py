"""The generator, forward and backward.

The public schedule and every plan, in one process and in turn.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import torch

from ld3m_min.backprop import Plan, generate_with_plan, ordered_plans
from ld3m_min.io.environment import environment, peak_memory
from ld3m_min.planner.backend import low_products_pay
from ld3m_min.planner.counter import Counter
from ld3m_min.planner.forecast import codes, forecast, weights_of
from ld3m_min.planner.machine import SHARE, device_bytes
from ld3m_min.planner.seconds import probe, seconds_of, synchronise

from . import public_schedule
from .cases import load

SCHEDULE = "public schedule"


def variants(steps, device):
    """Name -> plan: all plans in float32; then what may pay beyond them, alone and together."""
    rows = dict(ordered_plans(steps))
    rows["channels-last"] = Plan(channels_last=True)
    rows["bfloat16"] = Plan(precision="bfloat16")
    if device == "cpu":
        rows["compiled"] = Plan(compile="default")
        if low_products_pay():
            rows["bfloat16, compiled"] = Plan(precision="bfloat16", compile="default")
    if device == "cuda":
        rows["bfloat16, per-step"] = replace(rows["per-step"], precision="bfloat16")
        low = Plan(precision="bfloat16", channels_last=True)
        rows["bfloat16, channels-last"] = low
        rows["bfloat16, channels-last, compiled"] = replace(low, compile="default")
        rows["bfloat16, channels-last, CUDA graphs"] = replace(low, compile="reduce-overhead")
    return rows


def measure(case, device, *, repeats=5, names=None):
    """Time and memory of each variant, with what the planner said before.

    The gradients of each are compared with those of the first.

    Returns:
        A record: rows with the seconds of each repeat, peak bytes, forecasts and differences of
        gradients; `fits` is False where the memory is too small.
    """
    config, prior = case.config, load(case, device)
    public = public_schedule.as_public(prior)
    leaves = codes(prior, config, device)
    shape = (len(leaves[0]), 3, config.size, config.size)
    # stands for dL/dS
    cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    plans = {SCHEDULE: None, **variants(config.sampler.steps, torch.device(device).type)}
    plans = {k: v for k, v in plans.items() if names is None or k in names}

    def run(plan):
        Z, c, noise = (x.detach() for x in leaves)
        Z, c = Z.requires_grad_(), c.requires_grad_()
        if plan is None:
            public_schedule.backward_through(
                public, Z, c, noise, config.sampler, lambda images: cotangent
            )
        else:
            generate_with_plan(prior, Z, c, noise, config.sampler, plan).backward(cotangent)
        return Z.grad, c.grad

    # a CPU without instructions for bfloat16 takes a minute a pass: timed once, for the gradients
    once = {
        n
        for n, p in plans.items()
        if p and p.precision == "bfloat16" and torch.device(device).type == "cpu"
    }
    if once and low_products_pay():
        once = set()
    rows, reference = {}, None
    for name, plan in plans.items():
        row = {"plan": None if plan is None else vars(plan).copy(), "seconds": []}
        if plan is not None:
            said = forecast(prior, config, plan, device=device, matching=False)
            row |= {
                "forecast_bytes": said.peak_bytes,
                "forecast_weights": said.weight_bytes,
                "flops": said.flops,
            }
            if said.total_bytes > SHARE * device_bytes(device):
                rows[name] = row | {"fits": False}
                continue
        known = weights_of(prior, plan) if plan else weights_of(public, Plan())
        try:
            row["peak_bytes"], grads = _peak(lambda plan=plan: run(plan), known, device)
        except torch.OutOfMemoryError:
            rows[name] = row | {"fits": False}
            continue
        except Exception as error:  # a compiler that this machine lacks, say: reported, not hidden
            rows[name] = row | {"error": f"{type(error).__name__}: {str(error)[:200]}"}
            continue
        reference = reference or grads
        both = [
            torch.cat(
                [
                    g.double().flatten() / r.double().norm()
                    for g, r in zip(x, reference, strict=True)
                ]
            )
            for x in (grads, reference)
        ]
        row["cosine"] = torch.cosine_similarity(*both, dim=0).item()
        row["relative_difference"] = ((both[0] - both[1]).norm() / both[1].norm()).item()
        if plan is not None and plan.compile == "off" and name not in once:
            row["forecast_seconds"] = probe(prior, config, plan, device=device, repeats=1)
        rows[name] = row | {"fits": True}
    running = [n for n, r in rows.items() if r.get("fits")]
    for name in running:
        if name not in once:
            run(plans[name])
    for turn in range(repeats):  # in turn: whatever slows the machine slows all
        for name in running:
            if turn and name in once:
                continue
            synchronise(device)
            rows[name]["seconds"].append(
                seconds_of(lambda name=name: run(plans[name]), device, repeats=1, warm=False)
            )
    for name in running:
        rows[name]["median"] = median(rows[name]["seconds"])
        if SCHEDULE in running:
            rows[name]["ratio"] = median(rows[SCHEDULE]["seconds"]) / rows[name]["median"]
    record = {
        "schema": 1,
        "bench": "generator",
        "case": case.name,
        "prior": case.prior,
        "device": torch.device(device).type,
        "images": len(leaves[0]),
        "size": config.size,
        "T": config.sampler.steps,
        "rows": rows,
        "environment": environment(device),
    }
    precisions = ("float32", "bfloat16") if torch.device(device).type == "cuda" else ("float32",)
    record["matmul_flops"] = {p: matmul_flops(device, getattr(torch, p)) for p in precisions}
    return record


def _peak(function, known, device):
    """Peak bytes of a call, and what it returned.

    Counted are the bytes that tensors occupy beyond the weights in `known` and what else was there.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        out = function()
        torch.cuda.synchronize(device)
        return peak_memory(device) - before, out
    with Counter(known) as counter:
        out = function()
    return counter.peak, out


def matmul_flops(device, dtype, n=None):
    """Operations a second of one large matrix product: what the device can do at best."""
    n = n or (8192 if torch.device(device).type == "cuda" else 1024)
    a = torch.randn(n, n, dtype=dtype, device=device)
    return 2 * n**3 / seconds_of(lambda: a @ a, device, repeats=5)

"""Noise schedule, time steps and mixing weights against the public code's."""

import pytest
import torch

from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import PUBLIC_RESIDUAL
from ld3m_min.sampler import timesteps

from ._data import largest, load_json

SPEC = load_json("schedule")
TOLERANCE = SPEC["tolerance"]["float64"]["suggested_abs"]
CASES = [(s, T) for s in SPEC["schedules"] for T in s["ddim"]]


def alpha_bar(schedule):
    return alphas_cumprod(
        ldm_scheduler(
            num_train_timesteps=schedule["timesteps"],
            beta_start=schedule["linear_start"],
            beta_end=schedule["linear_end"],
        )
    )


@pytest.mark.parametrize("schedule", SPEC["schedules"])
def test_alpha_bar(schedule):
    ours = alpha_bar(schedule)
    assert ours.dtype == torch.float64
    betas = 1 - ours / torch.cat([torch.ones(1), ours[:-1]])
    for name, values in (("alphas_cumprod", ours), ("betas", betas)):
        for index, value in schedule[name].items():
            assert largest(values[int(index)], value) <= TOLERANCE


@pytest.mark.parametrize("schedule, T", CASES)
def test_time_steps_and_weights(schedule, T):
    case = schedule["ddim"][T]
    ts, ours = timesteps(int(T), schedule["timesteps"]), alpha_bar(schedule)
    assert ts == case["timesteps"] and len(ts) == case["num_steps"]
    assert largest(ours[ts], case["alphas"]) <= TOLERANCE
    assert largest(torch.cat([ours[:1], ours[ts[:-1]]]), case["alphas_prev"]) <= TOLERANCE
    n = len(ts)
    assert (
        largest([PUBLIC_RESIDUAL.weight(k, n) for k in range(n)], case["x0_mix_weight"])
        <= TOLERANCE
    )

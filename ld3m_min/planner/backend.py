"""Which backend runs the generator fastest on this machine, tried and not assumed (section 3.3).

Processors differ: bfloat16 halves the time on some and multiplies it on others, and compiling pays
in a long run only. What is chosen here is still compared with eager float32 before it is believed
(:class:`~ld3m_min.backends.Prepared`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ld3m_min.backends import backend_of
from ld3m_min.backprop import ONE_PASS, Plan
from ld3m_min.config import DistilConfig
from ld3m_min.planner.seconds import probe, seconds_of
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior

GAIN = 0.8  # of the time: another backend has to save a fifth
LONG = 1800.0  # seconds of a run from which on a compiler's minute may pay
SIDE = 512  # of the matrices that a processor is tried on


def probed(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    *,
    device: str | torch.device = "cpu",
    classes: int | None = None,
) -> Plan:
    """The plan of a configuration with the backend that is fastest here; nothing changes on a GPU.

    Args:
        prior: on the device.
        config: of the distillation; its plan has `probe`.
        device: where the run is.
        classes: of the data; None takes the prior's.

    Returns:
        The plan without `probe`.
    """
    plan = replace(config.plan, probe=False)
    if torch.device(device).type != "cpu":
        return plan

    def seconds(backend: Plan) -> float:
        return probe(prior, config, backend, device=device, repeats=1, classes=classes)

    took = seconds(ONE_PASS)
    if low_products_pay():
        low = seconds(replace(ONE_PASS, precision="bfloat16"))
        if low < GAIN * took:
            plan, took = replace(plan, precision="bfloat16"), low
    if config.space == "ld3m" and took * config.iterations > LONG:
        backend = replace(ONE_PASS, precision=plan.precision, compile="default")
        compiled = seconds(backend)
        ran = backend_of(prior, backend)  # eager again, where the compiled one was wrong
        if ran is not None and ran["denoiser"]["compile"] != "off" and compiled < GAIN * took:
            plan = replace(plan, compile="default")
    return plan


def low_products_pay() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32.

    It takes milliseconds where the answer is yes, and a second at most where bfloat16 is emulated.
    """
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(SIDE, SIDE, generator=generator)
    low = one.to(torch.bfloat16)
    return seconds_of(lambda: low @ low, "cpu") < GAIN * seconds_of(lambda: one @ one, "cpu")

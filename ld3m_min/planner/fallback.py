"""Which plan a run takes, and the one that it falls back to when memory runs out (section 3.3)."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from ld3m_min.backprop import Plan
from ld3m_min.config import DistilConfig
from ld3m_min.planner.backend import probed
from ld3m_min.planner.forecast import Forecast, forecast, forecasts
from ld3m_min.planner.machine import SHARE, device_bytes
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


def choose(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    *,
    device: str | torch.device = "cpu",
    available: int | float | None = None,
    below: Forecast | None = None,
    classes: int | None = None,
) -> Forecast:
    """The forecast of the fastest plan that fits.

    Args:
        prior: on any device; not touched.
        config: of the distillation.
        device: where it is to run.
        available: bytes; None takes the device's memory.
        below: a forecast that proved wrong: only plans that need less than it are looked at.
        classes: of the data; None takes the prior's.

    Raises:
        MemoryError: none fits; names the least that is needed.

    Example:
        >>> from ld3m_min import LatentDiffusionPrior, preset
        >>> from ld3m_min.planner import choose
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> config = preset("smoke", space="autoencoder")
        >>> [choose(prior, config, available=n * 2**20).name for n in (1000, 20)]
        ['one-pass', 'decoder']
    """
    available = device_bytes(device) if available is None else available
    least = below
    for row in forecasts(prior, config, device=device, classes=classes):
        if below is not None and row.total_bytes >= below.total_bytes:
            continue
        if row.total_bytes <= SHARE * available:
            return row
        least = row if least is None or row.total_bytes < least.total_bytes else least
    assert least is not None  # there is at least one plan
    raise MemoryError(
        f"no plan fits in {available / 2**30:.1f} GiB: {least.name!r} needs "
        f"{least.total_bytes / 2**30:.1f} GiB and none less; lower ipc = {config.ipc}, "
        f"size = {config.size} or batch_real = {config.batch_real}, or take precision bfloat16"
    )


class FallbackPlans:
    """The plan a run is on, and the one step down that it may take when memory runs out.

    Args:
        prior: on any device; not touched.
        config: `config.plan` with `probe` is replaced by what
            :func:`~ld3m_min.planner.backend.probed` finds, and with `auto` by what :func:`choose`
            finds.
        device: where the run is.
        classes: of the data; None takes the prior's.

    Attributes:
        plan: that the run is on.
        taken: whether the step down was taken.

    Raises:
        MemoryError: `config.plan` has `auto`, and no plan fits.
    """

    def __init__(
        self,
        prior: LatentDiffusionPrior,
        config: DistilConfig,
        *,
        device: str | torch.device = "cpu",
        classes: int | None = None,
    ) -> None:
        if config.plan.probe:
            config = replace(config, plan=probed(prior, config, device=device, classes=classes))
        self._prior, self._config = prior, config
        self._device, self._classes = device, classes
        self.taken = False
        self.plan: Plan = self._best().plan if config.plan.auto else config.plan

    def step_down(self, error: object) -> Plan:
        """The next plan after memory ran out.

        Args:
            error: what said so.

        Raises:
            MemoryError: it is the second time, or nothing needs less; says what was predicted and
                what to change.
        """
        config = self._config
        failed = forecast(
            self._prior,
            config,
            self.plan,
            device=self._device,
            name="the plan",
            classes=self._classes,
        )
        if self.taken:
            raise MemoryError(
                "out of memory again, under a plan that was predicted to need "
                f"{failed.total_bytes / 2**30:.2f} GiB ({error}); free the device of other work, "
                f"or lower ipc = {config.ipc}, size = {config.size} or batch_real = "
                f"{config.batch_real}, or take precision bfloat16; what was saved is whole"
            )
        self.taken = True
        row = self._best(below=failed)
        self.plan = row.plan
        warnings.warn(
            f"out of memory: from here on the plan is {row.name!r}, which is predicted to need "
            f"{row.total_bytes / 2**30:.2f} GiB instead of {failed.total_bytes / 2**30:.2f}",
            stacklevel=3,
        )
        return self.plan

    def _best(self, below: Forecast | None = None) -> Forecast:
        """What :func:`choose` finds for the run."""
        return choose(
            self._prior, self._config, device=self._device, below=below, classes=self._classes
        )

"""A cell of a grid: what it distils, and with which prior (section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ld3m_min.config import DistilConfig
from ld3m_min.experiments.places import prior_path
from ld3m_min.generated import DRAWS
from ld3m_min.io.seeds import seeded
from ld3m_min.io.values import checked
from ld3m_min.presets import preset, variant_lr
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior, load_prior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig
from ld3m_min.spaces.build import SPACES
from ld3m_min.systems import SYSTEMS, System

# how samples are drawn: as the card of a prior does
SAMPLES = SamplerConfig(steps=50, guidance_scale=3.0, residual=NO_RESIDUAL)


def _unchanged(config: DistilConfig) -> DistilConfig:
    """The preset's configuration as it is."""
    return config


def _with_sampler(config: DistilConfig, **changes: Any) -> DistilConfig:
    """A configuration with other settings of the sampler.

    Args:
        config: the preset's.
        changes: fields of the sampler's configuration.
    """
    return replace(config, sampler=replace(config.sampler, **changes))


def _with_residual(config: DistilConfig, **changes: Any) -> DistilConfig:
    """A configuration with another residual.

    Args:
        config: the preset's.
        changes: fields of the residual.
    """
    return _with_sampler(config, residual=replace(config.sampler.residual, **changes))


def _longer(config: DistilConfig) -> DistilConfig:
    """A configuration of three times as many iterations."""
    return replace(config, iterations=3 * config.iterations)


def _slower(config: DistilConfig) -> DistilConfig:
    """A configuration at a third of its rate, the next one that a search tries."""
    return replace(config, lr=config.lr / 3)


def _approximate_mtt(config: DistilConfig) -> DistilConfig:
    """A configuration with MTT's gradient as the public code has it."""
    return replace(config, mtt=replace(config.mtt, gradient="approximate"))


def _c_only(config: DistilConfig) -> DistilConfig:
    """A configuration that learns c alone, without a residual: a row of table 4."""
    return replace(_with_sampler(config, residual=NO_RESIDUAL), learn_z=False)


def _raised_z(config: DistilConfig) -> DistilConfig:
    """A configuration without a residual, with the rate of Z raised by what z_T takes from it.

    The gradient of Z has the factor sqrt(gamma_T), 1/34 at ten steps; the rate makes up for it.
    """
    return replace(_with_sampler(config, residual=NO_RESIDUAL), z_rate=34.0)


def _trained_for(config: DistilConfig, end: str) -> DistilConfig:
    """A configuration whose prior was trained less.

    Args:
        config: the preset's.
        end: of that prior's name.
    """
    return replace(config, prior=f"{config.prior}-{end}")


def _fine_tuned(config: DistilConfig, kind: str) -> DistilConfig:
    """A configuration whose prior was fine-tuned.

    Args:
        config: the preset's.
        kind: "minimax", or "control" without its criteria.
    """
    return replace(config, prior=f"{kind}-{config.prior}")


SOFT_LABELS, LONGER, SLOWER = "soft-labels", "longer", "slower"
# whose choice of one image per class is the same for every seed
SEEDLESS = ("herding", "k-means", "class-mean")
ABLATION = ("z-only", "c-only", "no-residual")  # table 4
RAISED_Z = "no-residual-z34"
# training steps of a prior, which is a preset of its own
PRIOR_STEPS = {"prior-1k": "1k", "prior-6k": "6k", "prior-19k": "19k"}
# priors whose denoiser knows nothing: arguments of `LatentDiffusionPrior.randomised` (table 3).
# As the public code has it; with random weights; and with a random autoencoder as well
RANDOM_PRIORS: dict[str, dict[str, Any]] = {
    "random-prior": {"kind": "zero-output"},
    "random-prior-true": {"kind": "weights"},
    "random-prior-all": {"kind": "weights", "autoencoder": True},
}
# what the paper and the public code do differently, or neither as this book (page of differences)
DIFFERENT: dict[str, Callable[[DistilConfig], DistilConfig]] = {
    "into-mean": partial(_with_residual, into="mean"),
    "noised-source": partial(_with_residual, source="noised"),
    "ancestral": partial(_with_sampler, eta=1.0),
    "redrawn-noise": partial(replace, redraw_noise=True),
    "two-normalisations": partial(replace, normalisation="reference-mismatch"),
    "approximate-mtt": _approximate_mtt,
}
# what differs from the preset's configuration
VARIANTS: dict[str, Callable[[DistilConfig], DistilConfig]] = {
    "": _unchanged,
    **{f"T{n}": partial(_with_sampler, steps=n) for n in (5, 20, 40, 80)},
    "no-residual": partial(_with_sampler, residual=NO_RESIDUAL),
    "c-only": _c_only,
    RAISED_Z: _raised_z,
    "z-only": partial(replace, learn_c=False),
    **{name: partial(_trained_for, end=end) for name, end in PRIOR_STEPS.items()},
    **dict.fromkeys(RANDOM_PRIORS, _unchanged),  # networks are drawn anew, see `load_prior`
    # of another domain than the digits; classes are matched by position, with a warning
    "other-prior": partial(replace, prior="letters"),
    # the prior of `fine-tune`, by Minimax's criteria and without them
    **{f"{kind}-prior": partial(_fine_tuned, kind=kind) for kind in ("minimax", "control")},
    **DIFFERENT,
    SOFT_LABELS: _unchanged,  # of the evaluation
    LONGER: _longer,
    SLOWER: _slower,
    "256px": _unchanged,  # its size is asked of the preset, which knows what else changes there
}


@dataclass(frozen=True)
class Cell:
    """One entry of a grid.

    Attributes:
        dataset: as in the configuration.
        preset: the size of the experiment.
        space: a name of `systems.SYSTEMS`.
        algorithm: as in the configuration; "none" for what is not learned.
        ipc: images per class.
        seed: of the distillation.
        variant: a name of `VARIANTS`; "" for none.

    Raises:
        InputError: a value out of range.

    Example:
        >>> from ld3m_min.experiments.grids import Cell
        >>> cell = Cell("digits", "cpu", "ld3m-code", "DM", ipc=1, variant="T5")
        >>> cell.name, cell.config().sampler.steps
        ('digits-cpu-ld3m-code-DM-ipc1-T5', 5)
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    dataset: str
    preset: str
    space: str
    algorithm: str
    ipc: int
    seed: int = 0
    variant: str = ""

    def __post_init__(self) -> None:
        checked(self, ipc=">= 1", seed=">= 0")

    @property
    def system(self) -> System:
        """What makes its set."""
        return SYSTEMS[self.space]

    @property
    def name(self) -> str:
        """File name of its record and folder of its run."""
        ends = [self.variant] * bool(self.variant) + [f"seed{self.seed}"] * bool(self.seed)
        return "-".join(
            (self.dataset, self.preset, self.space, self.algorithm, f"ipc{self.ipc}", *ends)
        )

    @property
    def distilled(self) -> Cell:
        """The cell whose distillation this one evaluates: another only with other labels."""
        return replace(self, variant="") if self.variant == SOFT_LABELS else self

    def config(self) -> DistilConfig:
        """What is distilled in this cell."""
        given: dict[str, Any] = {"dataset": self.dataset, "ipc": self.ipc, "seed": self.seed}
        if self.variant == "256px":
            given["size"] = 256
        if self.system.how == "learned":
            given["algorithm"] = self.algorithm
        else:
            given["iterations"] = 0
        config = preset(self.preset, space=self.space, **given)
        if self.space in DRAWS:
            config = replace(config, sampler=SAMPLES)
        if self.space == "minimax":
            config = _fine_tuned(config, "minimax")
        config = VARIANTS[self.variant](config)
        lr = variant_lr(self.preset, self.algorithm, self.space, self.variant)
        return config if lr is None else replace(config, lr=lr)

    def load_prior(self, device: str | torch.device = "cpu") -> AnyPrior | None:
        """The prior of this cell's configuration; None where the space needs none.

        A random one is drawn from the cell's seed.

        Args:
            device: where it is to be.
        """
        if not SPACES[self.system.space].needs_prior:
            return None
        found = load_prior(prior_path(self.config().prior), device=device)
        if self.variant not in RANDOM_PRIORS:
            return found
        assert isinstance(found, LatentDiffusionPrior), "no other has random priors in a grid"
        asked, generator = RANDOM_PRIORS[self.variant], seeded(self.seed, "random prior")
        return found.to("cpu").randomised(generator=generator, **asked).to(device)

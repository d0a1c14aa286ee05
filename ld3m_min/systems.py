"""What is compared, by the name that commands, records and tables have for it (section 4).

A system chooses real images, learns in some space, or draws from the prior. Each ends in a
:class:`~ld3m_min.synthetic.SyntheticSet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ld3m_min.config import SpaceName
from ld3m_min.residual import PAPER_RESIDUAL, PUBLIC_RESIDUAL, Residual


@dataclass(frozen=True)
class System:
    """One way to make a small set.

    Attributes:
        label: in tables.
        how: "chosen" among real images, "learned" by a distillation algorithm, or "drawn" from the
            prior, where nothing is learned.
        space: that its images are made in.
        residual: of the sampler, where the system is a choice of it; None leaves the preset's
            sampler as it is.
        eta: of the sampler, with the residual: equation (6) adds fresh noise at every step, the
            public code none.
    """

    label: str
    how: Literal["chosen", "learned", "drawn"]
    space: SpaceName
    residual: Residual | None = None
    eta: float = 0.0


# in the order of the tables; to add one that is learned, add a line
SYSTEMS: dict[str, System] = {
    "random": System("random real images", "chosen", "pixel"),
    "k-means": System("real images nearest to the means", "chosen", "pixel"),
    "pixel": System("pixels", "learned", "pixel"),
    "autoencoder": System("autoencoder latents", "learned", "autoencoder"),
    "autoencoder-bytes": System("autoencoder latents, equal bytes", "learned", "autoencoder-bytes"),
    "fred": System("frequencies (FreD)", "learned", "fred"),
    "ddif": System("neural fields (DDiF)", "learned", "ddif"),
    "ld3m-paper": System("LD3M, equation (6)", "learned", "ld3m", PAPER_RESIDUAL, 1.0),
    "ld3m-code": System("LD3M, public code", "learned", "ld3m", PUBLIC_RESIDUAL),
    "glad-w": System("GLaD, W+", "learned", "glad-w"),
    "glad-f": System("GLaD, F_n", "learned", "glad-f"),
    "initial": System("initial codes, equation (6)", "drawn", "ld3m", PAPER_RESIDUAL, 1.0),
    "initial-code": System("initial codes, public code", "drawn", "ld3m", PUBLIC_RESIDUAL),
    "sampled": System("samples of the prior", "drawn", "ld3m"),
    "d4m": System("cluster centres, noised and denoised", "drawn", "ld3m"),
    "mgd": System("samples guided to cluster centres", "drawn", "ld3m"),
    "minimax": System("samples of the prior fine-tuned by Minimax", "drawn", "ld3m"),
}
LEARNED = tuple(name for name, system in SYSTEMS.items() if system.how == "learned")

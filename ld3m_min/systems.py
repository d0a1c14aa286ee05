"""What is compared, by the name that commands, records and tables have for it (section 4).

A system chooses real images, learns in some space, or draws from the prior. Each ends in a
:class:`~ld3m_min.synthetic.SyntheticSet`. `python -m ld3m_min systems` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
        section: of the paper that speaks of it; "" where none does.
        learned: which tensors are; "" where none is.
        kept: what a set of it has to hold, and what all of its sets share.
        cost: of making a set, beside those of the others.
    """

    label: str
    how: Literal["chosen", "learned", "drawn"]
    space: SpaceName
    residual: Residual | None = None
    eta: float = 0.0
    section: str = field(kw_only=True)
    learned: str = field(kw_only=True)
    kept: str = field(kw_only=True)
    cost: str = field(kw_only=True)


_IMAGES = "its images"
_DECODED = "Z of each image; the decoder is shared"
_GENERATED = "Z and c of each image; decoder and denoiser are shared"
_ONE_CHAIN = "T passes of the denoiser for each image, once"
_CHAINS = "as autoencoder latents, with T more passes, of the denoiser"

# in the order of the tables; to add one that is learned, add a line
SYSTEMS: dict[str, System] = {
    "random": System(
        "random real images",
        "chosen",
        "pixel",
        section="2.1",
        learned="",
        kept=_IMAGES,
        cost="nothing",
    ),
    "herding": System(
        "real images by herding",
        "chosen",
        "pixel",
        section="1",
        learned="",
        kept=_IMAGES,
        cost="IPC passes over the images' features",
    ),
    "k-center": System(
        "real images far apart",
        "chosen",
        "pixel",
        section="1",
        learned="",
        kept=_IMAGES,
        cost="IPC passes over the images' features",
    ),
    "k-means": System(
        "real images nearest to the means",
        "chosen",
        "pixel",
        section="1",
        learned="",
        kept=_IMAGES,
        cost="ten clusterings of each class's features",
    ),
    "class-mean": System(
        "average image",
        "chosen",
        "pixel",
        section="",
        learned="",
        kept=_IMAGES,
        cost="one pass over the images",
    ),
    "webp": System(
        "random real images as WebP",
        "chosen",
        "pixel",
        section="",
        learned="",
        kept="as many lossy files as take the bytes of IPC raw images",
        cost="compressing the images that fit",
    ),
    "pixel": System(
        "pixels",
        "learned",
        "pixel",
        section="2.1",
        learned="pixels",
        kept=_IMAGES,
        cost="the distiller's passes of its network, in each iteration",
    ),
    "autoencoder": System(
        "autoencoder latents",
        "learned",
        "autoencoder",
        section="5",
        learned="Z",
        kept=_DECODED,
        cost="as pixels, with a pass of the decoder for each image and iteration",
    ),
    "autoencoder-bytes": System(
        "autoencoder latents, equal bytes",
        "learned",
        "autoencoder-bytes",
        section="5",
        learned="Z",
        kept="as many Z as take the bytes of IPC raw images; the decoder is shared",
        cost="as autoencoder latents, for more images",
    ),
    "fred": System(
        "frequencies (FreD)",
        "learned",
        "fred",
        section="",
        learned="coefficients of the kept frequencies",
        kept="coefficients, and a mask of each class",
        cost="as pixels, for more images",
    ),
    "ddif": System(
        "neural fields (DDiF)",
        "learned",
        "ddif",
        section="",
        learned="the weights of a small network for each image",
        kept="its networks",
        cost="as pixels, for more images, after a fit to real ones",
    ),
    "ld3m-paper": System(
        "LD3M, equation (6)",
        "learned",
        "ld3m",
        PAPER_RESIDUAL,
        1.0,
        section="3.1",
        learned="Z, c",
        kept=_GENERATED,
        cost=_CHAINS,
    ),
    "ld3m-code": System(
        "LD3M, public code",
        "learned",
        "ld3m",
        PUBLIC_RESIDUAL,
        section="3.1",
        learned="Z, c",
        kept=_GENERATED,
        cost=_CHAINS,
    ),
    "glad-w": System(
        "GLaD, W+",
        "learned",
        "glad-w",
        section="2.3",
        learned="w of each layer",
        kept="w of each image; the generator is shared",
        cost="as autoencoder latents, with the generator in place of the decoder",
    ),
    "glad-f": System(
        "GLaD, F_n",
        "learned",
        "glad-f",
        section="2.3",
        learned="features after n layers, w of the later ones",
        kept="features and w of each image; the later layers are shared",
        cost="as GLaD in W+, less the first n layers",
    ),
    "initial": System(
        "initial codes, equation (6)",
        "drawn",
        "ld3m",
        PAPER_RESIDUAL,
        1.0,
        section="3.2",
        learned="",
        kept=_GENERATED,
        cost=_ONE_CHAIN,
    ),
    "initial-code": System(
        "initial codes, public code",
        "drawn",
        "ld3m",
        PUBLIC_RESIDUAL,
        section="3.2",
        learned="",
        kept=_GENERATED,
        cost=_ONE_CHAIN,
    ),
    "sampled": System(
        "samples of the prior",
        "drawn",
        "ld3m",
        section="2.2",
        learned="",
        kept=_GENERATED,
        cost="50 passes of the denoiser, once",
    ),
    "d4m": System(
        "cluster centres, noised and denoised",
        "drawn",
        "ld3m",
        section="",
        learned="",
        kept=_IMAGES,
        cost="a clustering of latents, then T passes of the denoiser for each image, once",
    ),
    "mgd": System(
        "samples guided to cluster centres",
        "drawn",
        "ld3m",
        section="",
        learned="",
        kept=_IMAGES,
        cost="a clustering of latents, then 50 passes of the denoiser, once",
    ),
    "minimax": System(
        "samples of the prior fine-tuned by Minimax",
        "drawn",
        "ld3m",
        section="5",
        learned="",
        kept=_GENERATED,
        cost="a fine-tuning of the denoiser, then 50 passes of it, once",
    ),
}
LEARNED = tuple(name for name, system in SYSTEMS.items() if system.how == "learned")


def listed() -> list[dict[str, str]]:
    """Everything that makes a set, in the order of the tables.

    Returns:
        Of each system its name and label, the section of the paper that speaks of it, how a set is
        made, what is learned, what a set has to hold, and what it costs to make; "–" for nothing.
    """
    return [
        {
            "system": name,
            "label": system.label,
            "section": system.section or "–",
            "made": system.how,
            "learned": system.learned or "–",
            "kept": system.kept,
            "cost": system.cost,
        }
        for name, system in SYSTEMS.items()
    ]

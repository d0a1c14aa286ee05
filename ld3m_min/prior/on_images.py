"""What a prior does to images that it may not know: ten of them, reconstructed (section 4.1).

A prior of another domain, size or quality is seen at once in what its autoencoder leaves of an
image: nothing that is lost there can be learned behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.io.disk import StrPath
from ld3m_min.io.pictures import save_strip
from ld3m_min.prior.class_matching import ClassMatching, rows_by_name
from ld3m_min.prior.classifier import some_of_each
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.quality import FIT_PSNR, decibels
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.training_log import TrainedOn

MOST = 10  # images
MUSH = 20.0  # dB of a reconstruction in which shapes are blurred and textures gone
WARN = (MUSH + FIT_PSNR) / 2  # nearer to mush than to what a card asks of a fit prior
PICTURE = "prior-on-your-images.png"


@dataclass(frozen=True)
class OnImages:
    """What a prior makes of some training images.

    Attributes:
        psnr: peak signal-to-noise ratio of each image and its reconstruction, dB.
        real: the images, in [0, 1].
        rebuilt: decode(encode(real)).
    """

    psnr: tuple[float, ...]
    real: Float[Tensor, "n 3 H W"]
    rebuilt: Float[Tensor, "n 3 H W"]

    @property
    def mean(self) -> float:
        """Mean of `psnr`, dB."""
        return sum(self.psnr) / len(self.psnr)

    @property
    def line(self) -> str:
        """What was found, in one line."""
        return (
            f"the prior's autoencoder on {len(self.psnr)} of your training images: "
            f"{self.mean:.1f} dB between image and reconstruction, from {min(self.psnr):.1f} to "
            f"{max(self.psnr):.1f} ({MUSH:.0f} is mush, {FIT_PSNR:.0f} is fit, a prior of the very "
            "images has 30 and more)"
        )

    @property
    def warning(self) -> str | None:
        """What it means for a distillation where it is bad; None where it isn't."""
        if self.mean >= WARN:
            return None
        return (
            f"its reconstructions have {self.mean:.1f} dB, less than "
            f"{WARN:.0f}, and whatever is lost there no distilled image can show; train a prior "
            "on your own folder (train-prior), take one of such images, or learn pixels"
        )

    def save(self, path: StrPath) -> None:
        """Write the images above their reconstructions.

        Args:
            path: the PNG file.
        """
        save_strip(torch.cat([self.real, self.rebuilt]), path, columns=len(self.real))


@torch.no_grad()
def on_images(prior: LatentDiffusionPrior, data: RealImages, n: int = MOST) -> OnImages:
    """Take a few training images through a prior's autoencoder, of each class as many as another.

    Args:
        prior: whose autoencoder is asked.
        data: its training split is looked at.
        n: how many images at most.

    Raises:
        InputError: the images do not fit the autoencoder.
    """
    index = some_of_each(data.train, min(n, len(data.train)))
    kept = torch.linspace(0, len(index) - 1, min(n, len(index))).round().long()
    real = data.train.take(index[kept]).to(prior.device)
    rebuilt = torch.cat([prior.decode(prior.encode(x)) for x in real.split(1)])
    found = decibels(rebuilt.float(), real).tolist()
    return OnImages(tuple(round(x, 2) for x in found), real.cpu(), rebuilt.float().cpu())


def is_of(
    prior: LatentDiffusionPrior, data: RealImages, matching: ClassMatching | None = None
) -> bool:
    """Whether a prior was trained on the data that it is to be used on.

    Its folder may say on which images it was trained. Where it doesn't, data from a folder are
    taken for others, and named data sets for the prior's own if it knows their classes and size.

    Args:
        prior: the prior; its classes are its own, unless there is a matching.
        data: the data.
        matching: how the classes were matched, where the prior has been given those of the data.
    """
    trained = TrainedOn.read(prior.source)
    if trained is not None:
        return trained.digest == data.train.digest
    if data.files is not None and not data.ids:
        return False
    side = prior.autoencoder.config.get("sample_size")
    if side not in (None, data.size):
        return False
    if matching is not None:
        return matching.by in ("name", "id")
    return _knows(prior.classes, data.classes)


def _knows(known: Sequence[str], names: Sequence[str]) -> bool:
    """Whether all names are known."""
    return all(rows_by_name(names, known).values())

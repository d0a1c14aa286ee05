"""The configurations of the style-based generators that are trained here (section 2.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ld3m_min.errors import InputError
from ld3m_min.io.values import checked
from ld3m_min.prior.classifier import ClassifierConfig
from ld3m_min.prior.losses import LOSSES
from ld3m_min.prior.style_parts import StyleArchitecture


@dataclass(frozen=True)
class StyleConfig:
    """Architecture and training of a style-based generator.

    Attributes:
        name: of the configuration.
        objective: "gan" trains it against a critic, "vae" as the decoder of an autoencoder.
        dataset: what it is trained on, a name that `load_data` knows.
        size: side of the images, pixels.
        widths: channels at 4, 8, 16, ... pixels, of the generator and of what it is trained with.
        z_width: of the noise.
        w_width: D, of a code.
        class_width: of a class's embedding.
        mapping_layers: of the mapping network.
        steps: of the training.
        batch: images a step, real and generated.
        lr: the highest rate, of both networks.
        r1: weight of the critic's gradient penalty, halved; for "gan".
        r1_every: steps from one penalty to the next; for "gan".
        augment: share of the images that each augmentation of the critic's images changes; for
            "gan".
        kl_weight: of the Kullback-Leibler term, a sum over the noise; for "vae".
        loss: of the reconstruction, a name in `ld3m_min.prior.losses.LOSSES`; for "vae".
        flip: mirror half of the images; for "vae".
        ema: decay of the averaged weights, which are the ones that are kept.
        checkpoint_every: steps after which a checkpoint is due.
        checkpoint_seconds: seconds after which one is due, if they pass first.
        classifier: what its images are recognised by; None for the support vector machine of the
            digits.
        about: what the model card says of it.
        seed: of all that is drawn.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    name: str
    objective: Literal["gan", "vae"] = "gan"
    dataset: str = "digits"
    size: int = 32
    widths: tuple[int, ...] = (64, 64, 32, 16)
    z_width: int = 32
    w_width: int = 64
    class_width: int = 32
    mapping_layers: int = 2
    steps: int = 3000
    batch: int = 32
    lr: float = 2e-3
    r1: float = 0.1
    r1_every: int = 16
    augment: float = 0.6
    kl_weight: float = 1e-3
    loss: str = "mse"
    flip: bool = False
    ema: float = 0.998
    checkpoint_every: int = 500
    checkpoint_seconds: float = 60.0
    classifier: ClassifierConfig | None = None
    about: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        checked(
            self,
            loss=tuple(LOSSES),
            steps=">= 1",
            batch=">= 2",
            lr="> 0",
            r1=">= 0",
            r1_every=">= 1",
            augment="in [0, 1]",
            kl_weight=">= 0",
            ema="in [0, 1)",
            checkpoint_every=">= 1",
            checkpoint_seconds="> 0",
        )
        if self.architecture.size != self.size:
            raise InputError(
                f"{len(self.widths)} widths, from 4 pixels on, make images of "
                f"{self.architecture.size} px, not size = {self.size}; give one more or fewer"
            )

    @property
    def architecture(self) -> StyleArchitecture:
        """How large the generator is."""
        return StyleArchitecture(
            self.widths, self.z_width, self.w_width, self.class_width, self.mapping_layers
        )

    @property
    def kind(self) -> str:
        """What cards and records call it: "style-gan" or "style-vae"."""
        return f"style-{self.objective}"


_PHOTOS = StyleConfig(  # about three hours of one slow thread
    "style-imagenette-64",
    objective="vae",
    dataset="imagenette",
    size=64,
    widths=(96, 96, 64, 48, 32),
    z_width=128,
    w_width=128,
    class_width=64,
    steps=8000,
    batch=16,
    loss="sharp",
    flip=True,
    checkpoint_seconds=300.0,
    classifier=ClassifierConfig(network="ConvNet", width=64, size=64, epochs=20, per_class=20),
    about="a style decoder, trained as an autoencoder on ImageNette at 64 px",
)
STYLE_PRESETS = {
    "style-digits": StyleConfig(
        "style-digits", about="the shipped style-based generator of the digits, a GAN"
    ),
    "style-vae-digits": StyleConfig(
        "style-vae-digits",
        objective="vae",
        steps=3000,
        batch=64,
        about="the same generator, trained as the decoder of an autoencoder",
    ),
    "style-smoke": StyleConfig(
        "style-smoke",
        widths=(8, 8, 8, 8),
        z_width=4,
        w_width=8,
        class_width=4,
        steps=4,
        batch=4,
        r1_every=2,
        checkpoint_every=2,
        about="four steps, for a test: it draws nothing",
    ),
    "style-imagenette-64": _PHOTOS,
    "style-imagenette-64-smoke": replace(
        _PHOTOS,
        name="style-imagenette-64-smoke",
        widths=(8, 8, 8, 8, 8),
        z_width=4,
        w_width=8,
        class_width=4,
        steps=2,
        batch=2,
        checkpoint_every=1,
        classifier=ClassifierConfig(
            network="ConvNet", width=8, size=64, epochs=1, held_out=20, per_class=2, images=40
        ),
        about="two steps, for a test: it draws nothing",
    ),
}


def style_preset(name: str, **overrides: Any) -> StyleConfig:
    """A named configuration with some values changed.

    Args:
        name: of a preset in `STYLE_PRESETS`.
        **overrides: fields of :class:`StyleConfig` and their values; the class checks them.

    Raises:
        InputError: no such preset, or a value that cannot be.
        TypeError: no such field.
    """
    if name not in STYLE_PRESETS:
        raise InputError(f"unknown style preset {name!r}; choose {', '.join(STYLE_PRESETS)}")
    return replace(STYLE_PRESETS[name], **overrides)

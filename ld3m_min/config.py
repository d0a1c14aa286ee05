"""Every setting of a distillation and of its evaluation: section 4 of the paper, and supplement.

Configurations are frozen dataclasses whose fields are checked when one is made. The command line
has an option for each field; its help is the text below `Attributes`. The presets are in
:mod:`ld3m_min.presets`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from typing import Any, Literal, get_args

from ld3m_min.augment import DSA
from ld3m_min.backprop import Plan
from ld3m_min.errors import InputError
from ld3m_min.io.values import checked, hints_of
from ld3m_min.sampler import SamplerConfig

Algorithm = Literal["DC", "DM", "MTT"]
SpaceName = Literal[
    "pixel", "autoencoder", "autoencoder-bytes", "fred", "ddif", "ld3m", "glad-w", "glad-f"
]
Architecture = Literal["ConvNet", "AlexNet", "VGG11", "ResNet18", "ViT", "MLP", "ResNet10"]
Norm = Literal["instance", "batch", "layer", "none"]
Normalisation = Literal["shared", "reference-mismatch"]

STYLE_SPACES: tuple[SpaceName, ...] = ("glad-w", "glad-f")  # of a style-based generator
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
SPACES: tuple[SpaceName, ...] = get_args(SpaceName)
# of the paper's tables: the first distils, the others are its unseen ones
ARCHITECTURES: tuple[Architecture, ...] = ("ConvNet", "AlexNet", "VGG11", "ResNet18", "ViT")
# of every choice, so that none of the unseen ones takes part in it
VALIDATORS: tuple[Architecture, ...] = ("ConvNet", "MLP", "ResNet10")
# the spaces, or the algorithm, that look at a setting; the settings not named here matter in all
SPACES_OF: dict[str, tuple[SpaceName, ...]] = {
    "fred": ("fred",),
    "ddif": ("ddif",),
    "glad": STYLE_SPACES,
    "plan": ("autoencoder", "autoencoder-bytes", "ld3m", *STYLE_SPACES),
    **dict.fromkeys(("sampler", "learn_z", "learn_c", "z_rate", "redraw_noise"), ("ld3m",)),
}
ALGORITHM_OF: dict[str, Algorithm] = {"mtt": "MTT", "dc": "DC"}
DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"


@dataclass(frozen=True)
class NetworkConfig:
    """The network that distils: ConvNet-5 at 128 pixels in the paper (section 4.1).

    Attributes:
        name: architecture.
        depth: blocks of the ConvNet. None takes the protocol's for the image size, and is the only
            choice for other architectures.
        width: channels of a ConvNet's block. Other architectures scale theirs by width / 128.
        norm: normalisation in the network.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    name: Architecture = "ConvNet"
    depth: int | None = None
    width: int = 128
    norm: Norm = "instance"

    def __post_init__(self) -> None:
        checked(self, depth=">= 1", width=">= 1")


@dataclass(frozen=True)
class DCConfig:
    """Gradient matching (section 2.1).

    Attributes:
        metric: distance of two gradients. "ours" is the cosine by layer of the public code.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    metric: Literal["ours", "mse", "cos"] = "ours"

    def __post_init__(self) -> None:
        checked(self)


@dataclass(frozen=True)
class MTTConfig:
    """Trajectory matching and its experts (section 2.1).

    Attributes:
        experts: number of expert trajectories.
        train_epochs: epochs that an expert may be trained for.
        expert_lr: learning rate of an expert's SGD.
        expert_batch: real images in a batch of an expert's training.
        expert_epochs: epochs between the start and the target of a match.
        max_start_epoch: last epoch that a match may start from.
        steps: N, inner steps of the student on the synthetic set.
        batch: synthetic images in an inner step. None takes all of them.
        lr: learning rate of the student, where it starts; it is learned.
        lr_lr: learning rate that the student's learning rate is learned with.
        gradient: of the inner steps. "approximate" is that of the public LD3M and GLaD code, for
            comparison.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    experts: int = 5000
    train_epochs: int = 15
    expert_lr: float = 0.01
    expert_batch: int = 256
    expert_epochs: int = 3
    max_start_epoch: int = 5
    steps: int = 20
    batch: int | None = None
    lr: float = 0.01
    lr_lr: float = 1e-6
    gradient: Literal["exact", "approximate"] = "exact"

    def __post_init__(self) -> None:
        checked(
            self,
            experts=">= 1",
            train_epochs=">= 1",
            expert_batch=">= 1",
            expert_epochs=">= 1",
            steps=">= 1",
            batch=">= 1",
            max_start_epoch=">= 0",
            expert_lr="> 0",
            lr="> 0",
            lr_lr=">= 0",
        )
        if self.max_start_epoch + self.expert_epochs > self.train_epochs:
            raise InputError(
                f"max_start_epoch {self.max_start_epoch} + expert_epochs {self.expert_epochs} "
                f"reach past the experts' {self.train_epochs} epochs; train them longer or match "
                "earlier"
            )


@dataclass(frozen=True)
class FreDConfig:
    """Images by their frequencies, for the space "fred" (FreD, NeurIPS 2023).

    Attributes:
        kept: frequencies that each class keeps, of those of an image. None takes an eighth of them,
            which makes room for eight images in the place of one.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    kept: int | None = None

    def __post_init__(self) -> None:
        checked(self, kept=">= 1")


@dataclass(frozen=True)
class DDiFConfig:
    """Images as small networks of the coordinates, for the space "ddif" (arXiv 2503.04835).

    Attributes:
        width: numbers in a hidden layer. None takes the published ones, or what lies between: 6 up
            to 32 pixels, 20 at 128, in proportion to the size above 32.
        hidden: layers between the first one and the last. None takes 1 up to 32 pixels, 2 above.
        first_frequency: factor in the sines of the first layer.
        hidden_frequency: factor in the sines of the others.
        fit_steps: steps of Adam that bring the networks to real images before the distillation.
        fit_lr: learning rate of these steps, where it starts; it falls to 0 as a cosine.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    width: int | None = None
    hidden: int | None = None
    first_frequency: float = 30.0
    hidden_frequency: float = 40.0
    fit_steps: int = 1000
    fit_lr: float = 0.01

    def __post_init__(self) -> None:
        checked(
            self,
            width=">= 1",
            hidden=">= 0",
            first_frequency="> 0",
            hidden_frequency="> 0",
            fit_steps=">= 0",
            fit_lr="> 0",
        )


@dataclass(frozen=True)
class GladConfig:
    """What is learned of a style-based generator, and where that starts (section 2.3).

    Attributes:
        layer: n of F_n, in the space "glad-f".
        start: "noise" maps one noise for each image, "mean" takes the mean code of the class, with
            which images of a class start nearly alike, and "invert" finds the codes of the real
            images that a set starts from.
        samples: noises of a mean code.
        steps: of an inversion.
        w_lr: learning rate of the codes in "glad-f", as a multiple of that of the features; the
            public code's is a thousandth.
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    layer: int = 5
    start: Literal["noise", "mean", "invert"] = "noise"
    samples: int = 1000
    steps: int = 300
    w_lr: float = 1e-3

    def __post_init__(self) -> None:
        checked(self, layer=">= 1", samples=">= 1", steps=">= 1", w_lr="> 0")


@dataclass(frozen=True)
class DistilConfig:
    """One distillation (section 4.1).

    Attributes:
        dataset: what is distilled: "digits", "letters", a subset of ImageNet such as "imagenette",
            or a folder with one subfolder of images per class.
        size: side of the images, in pixels.
        algorithm: what is matched (section 2.1).
        space: what is learned (sections 2.3 and 3).
        ipc: images per class. The spaces "autoencoder-bytes", "fred" and "ddif" have more, in the
            storage of so many.
        iterations: iterations of the distillation. 0 leaves the real images that the set starts
            from.
        lr: learning rate of SGD on what is learned: pixels, Z, or Z and c alike.
        momentum: of the same SGD.
        batch_real: real images per class and iteration.
        dsa: augmentation, the names of its operations joined by "_"; "none" for none.
        normalisation: of the images before they reach a network: "shared" by real and synthetic
            ones, or the "reference-mismatch" of the public code.
        prior: name, folder or hub id of the prior; not used in pixel space.
        network: the network that distils.
        sampler: the sampling process, for the space "ld3m".
        plan: how gradients pass the generator (section 3.3).
        dc: for the algorithm "DC".
        mtt: for the algorithm "MTT".
        fred: for the space "fred".
        ddif: for the space "ddif".
        glad: for the spaces "glad-w" and "glad-f".
        learn_z: learn the latents Z, in the space "ld3m".
        learn_c: learn the conditioning c, in the space "ld3m".
        z_rate: learning rate of Z, in the space "ld3m", as a multiple of `lr`, which is that of c.
        redraw_noise: draw the forward noise anew at every generation, as the public code does; for
            comparison only.
        patience: iterations in a row that may be not finite before the run stops.
        checkpoint_every: iterations from one checkpoint to the next.
        seed: of every draw: real images, noise, networks, augmentation.

    Example:
        >>> from dataclasses import replace
        >>> from ld3m_min import DistilConfig
        >>> config = DistilConfig(space="pixel", ipc=10, iterations=100)
        >>> config.algorithm, config.network.name, config.sampler.steps
        ('DM', 'ConvNet', 10)
        >>> replace(config, algorithm="MTT").mtt.steps
        20
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    dataset: str = "digits"
    size: int = 32
    algorithm: Algorithm = "DM"
    space: SpaceName = "ld3m"
    ipc: int = 1
    iterations: int = 5000
    lr: float = 0.01
    momentum: float = 0.5
    batch_real: int = 256
    dsa: str = DSA_STRATEGY
    normalisation: Normalisation = "shared"
    prior: str = "digits"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    plan: Plan = field(default_factory=Plan)
    dc: DCConfig = field(default_factory=DCConfig)
    mtt: MTTConfig = field(default_factory=MTTConfig)
    fred: FreDConfig = field(default_factory=FreDConfig)
    ddif: DDiFConfig = field(default_factory=DDiFConfig)
    glad: GladConfig = field(default_factory=GladConfig)
    learn_z: bool = True
    learn_c: bool = True
    z_rate: float = 1.0
    redraw_noise: bool = False
    patience: int = 10
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        checked(
            self,
            size=">= 1",
            ipc=">= 1",
            batch_real=">= 1",
            patience=">= 1",
            checkpoint_every=">= 1",
            iterations=">= 0",
            lr="> 0",
            z_rate="> 0",
            momentum="in [0, 1)",
        )
        DSA(self.dsa)  # an unknown operation is an error here, not at the first iteration
        if self.space == "ld3m" and not (self.learn_z or self.learn_c):
            raise InputError("learn_z and learn_c are both off: nothing would be learned")
        if self.space == "ld3m" and not self.learn_z and self.sampler.guidance_scale == 0:
            raise InputError(
                "with a guidance scale of 0 the images don't depend on c, and learn_z is off: "
                "nothing would be learned; raise sampler.guidance_scale, or learn Z"
            )


@dataclass(frozen=True)
class EvalConfig:
    """The evaluation protocol (section 4.1): networks trained from scratch on the set, tested once.

    Attributes:
        epochs: epochs of a training on the set.
        batch: images in a batch.
        lr: learning rate by architecture; "default" for those that are not named.
        momentum: of SGD.
        weight_decay: of SGD.
        ema: decay per step of the averaged weights, which are what is tested.
        dsa: augmentation, the names of its operations joined by "_"; "none" for none.
        repeats: independent trainings of each architecture.
        width: channels, as of the network that distils; 128 is the protocol's.
        split: real images to test on: "test" for the figure that is reported, "validation" for any
            choice.

    Example:
        >>> from ld3m_min import EvalConfig
        >>> config = EvalConfig(repeats=2, lr={"default": 0.01, "ViT": 0.001})
        >>> config.epochs, config.split, config.lr["ViT"]
        (1000, 'test', 0.001)
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    epochs: int = 1000
    batch: int = 256
    lr: dict[str, float] = field(
        default_factory=lambda: {"default": 0.001, "VGG11": 0.0001},
        # the options that the command line has
        metadata={"keys": ("default", *get_args(Architecture))},
    )
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.995
    dsa: str = DSA_STRATEGY
    repeats: int = 5
    width: int = 128
    split: Literal["validation", "test"] = "test"

    def __post_init__(self) -> None:
        checked(
            self,
            epochs=">= 1",
            batch=">= 1",
            repeats=">= 1",
            width=">= 1",
            lr="> 0",
            momentum="in [0, 1)",
            weight_decay=">= 0",
            ema="in [0, 1)",
        )
        DSA(self.dsa)
        if "default" not in self.lr:
            raise InputError("lr needs an entry 'default' for architectures that are not named")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration, which is a dataclass, as nested dicts of values that JSON and YAML have."""
    return dataclasses.asdict(config)


def unused_settings(config: DistilConfig) -> set[str]:
    """Names of the settings that neither the space nor the algorithm of a run looks at.

    Args:
        config: of the run.

    Example:
        >>> from ld3m_min import preset
        >>> from ld3m_min.config import unused_settings
        >>> sorted(unused_settings(preset("smoke", algorithm="MTT")))
        ['dc', 'ddif', 'fred', 'glad']
    """
    of_others = {name for name, spaces in SPACES_OF.items() if config.space not in spaces}
    return of_others | {name for name, a in ALGORITHM_OF.items() if config.algorithm != a}


def own_settings(config: DistilConfig) -> dict[str, Any]:
    """:func:`to_dict` of a distillation, without the settings of spaces that it isn't in.

    Nor has it a `z_rate` of 1, which every run had before there was such a setting.
    """
    # not what else a space doesn't look at: a set's recipe says all of it, as it always did
    others = {k for k in ("fred", "ddif", "glad") if config.space not in SPACES_OF[k]}
    others |= {"z_rate"} if config.z_rate == 1 or config.space != "ld3m" else set()
    return {k: v for k, v in to_dict(config).items() if k not in others}


@cache
def nested_fields(kind: type) -> Mapping[str, type]:
    """The fields of a dataclass that hold dataclasses, or may: field -> its dataclass."""
    found = {}
    for name, hint in hints_of(kind).items():
        options = [a for a in get_args(hint) if a is not type(None)] or [hint]
        if len(options) == 1 and isinstance(options[0], type) and is_dataclass(options[0]):
            found[name] = options[0]
    return found


def joined(
    below: Mapping[str, Any], above: Mapping[str, Any], kind: type, *, extend: bool = False
) -> dict[str, Any]:
    """The fields of a configuration with others laid over them, at any depth.

    Args:
        below: nested fields of the dataclass `kind`, as of :func:`to_dict`; not all need be there.
        above: some of them, with other values.
        kind: a dataclass.
        extend: whether a field that is itself a mapping gains what `above` has, or is replaced.

    Returns:
        Nested fields, not checked.
    """
    values, nested = dict(below), nested_fields(kind)
    for name, value in above.items():
        if name in nested and isinstance(value, Mapping):
            values[name] = joined(values.get(name) or {}, value, nested[name], extend=extend)
        elif extend and isinstance(value, Mapping) and isinstance(values.get(name), Mapping):
            values[name] = {**values[name], **value}
        else:
            values[name] = value
    return values

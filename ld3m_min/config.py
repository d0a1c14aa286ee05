"""Every setting of a distillation, and the presets: section 4 and the supplement of the paper.

Configurations are frozen dataclasses. `preset(name, algorithm=..., space=...)` gives a whole one; an unknown name, field
or value is an error that lists the choices. `to_dict` / `from_dict` bring one into a record and back.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace

from .augment import DSA
from .backprop import AUTO, Plan
from .data import NORMALISATIONS
from .errors import InputError
from .networks import NETWORKS, NORMS
from .sampler import SamplerConfig
from .values import checked, from_dict, within  # noqa: F401

ALGORITHMS = ("DC", "DM", "MTT")
SPACES = ("pixel", "autoencoder", "ld3m")
ARCHITECTURES = ("ConvNet", "AlexNet", "VGG11", "ResNet18", "ViT")
DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"


@dataclass(frozen=True)
class NetworkConfig:
    """The network that distils: ConvNet-5 at 128 px in the paper. `depth` None is the protocol's for the image size."""

    name: str = "ConvNet"
    depth: int | None = None
    width: int = 128
    norm: str = "instance"

    def __post_init__(self):
        checked(self, name=tuple(NETWORKS), depth=">= 1", width=">= 1", norm=(*NORMS, "none"))


@dataclass(frozen=True)
class DCConfig:
    """Gradient matching. `metric`: "ours" (layer-wise cosine of the public code), "mse" or "cos"."""

    metric: str = "ours"

    def __post_init__(self):
        checked(self, metric=("ours", "mse", "cos"))


@dataclass(frozen=True)
class MTTConfig:
    """Trajectory matching and its experts.

    Attributes:
        experts, train_epochs, expert_lr, expert_batch: how many expert trajectories, and how each is trained.
        expert_epochs: epochs between start and target; max_start_epoch: the last start there may be.
        steps: N, inner steps on the synthetic set; batch: images per inner step, None for all.
        lr, lr_lr: the student's learning rate, itself learned, and the rate it is learned with.
        gradient: "exact", or "approximate" as in the public LD3M/GLaD code, for comparison.
    """

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
    gradient: str = "exact"

    def __post_init__(self):
        checked(self, experts=">= 1", train_epochs=">= 1", expert_batch=">= 1", expert_epochs=">= 1", steps=">= 1", batch=">= 1",
                max_start_epoch=">= 0", expert_lr="> 0", lr="> 0", lr_lr=">= 0", gradient=("exact", "approximate"))
        if self.max_start_epoch + self.expert_epochs > self.train_epochs:
            raise InputError(
                f"max_start_epoch {self.max_start_epoch} + expert_epochs {self.expert_epochs} reach past the experts' "
                f"{self.train_epochs} epochs; train them longer or match earlier"
            )


@dataclass(frozen=True)
class DistilConfig:
    """One distillation.

    Attributes:
        dataset, size: what is distilled, at how many pixels a side.
        algorithm: "DC", "DM" or "MTT" (section 2.1). space: "pixel", "autoencoder" or "ld3m" (sections 2.3 and 3).
        ipc: images per class. iterations: 0 leaves the random real images the set starts from.
        lr, momentum: of SGD on what is learned: pixels, Z, or Z and c alike.
        batch_real: real images per class and iteration. dsa: augmentation strategy, "none" for none.
        normalisation: "shared" by real and synthetic images, or the "reference-mismatch" of the public code.
        prior: name, folder or hub id of the prior; not used in pixel space.
        plan: how gradients pass the generator (section 3.3). patience: non-finite iterations in a row before it stops.
        redraw_noise: draw the forward noise anew at every generation, as the public code does; for comparison only.
    """

    dataset: str = "digits"
    size: int = 32
    algorithm: str = "DM"
    space: str = "ld3m"
    ipc: int = 1
    iterations: int = 5000
    lr: float = 0.01
    momentum: float = 0.5
    batch_real: int = 256
    dsa: str = DSA_STRATEGY
    normalisation: str = "shared"
    prior: str = "digits"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    plan: Plan = field(default_factory=Plan)
    dc: DCConfig = field(default_factory=DCConfig)
    mtt: MTTConfig = field(default_factory=MTTConfig)
    learn_z: bool = True
    learn_c: bool = True
    redraw_noise: bool = False
    patience: int = 10
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self):
        checked(self, algorithm=ALGORITHMS, space=SPACES, normalisation=NORMALISATIONS, size=">= 1", ipc=">= 1",
                batch_real=">= 1", patience=">= 1", checkpoint_every=">= 1", iterations=">= 0", lr="> 0", momentum="in [0, 1)")
        DSA(self.dsa)  # an unknown operation is an error here, not at the first iteration
        if self.space == "ld3m" and not (self.learn_z or self.learn_c):
            raise InputError("learn_z and learn_c are both off: nothing would be learned")
        if self.space == "ld3m" and not self.learn_z and self.sampler.guidance_scale == 0:
            raise InputError("with a guidance scale of 0 the images don't depend on c, and learn_z is off: nothing would be "
                             "learned; raise sampler.guidance_scale, or learn Z")


@dataclass(frozen=True)
class EvalConfig:
    """The evaluation protocol (section 4.1): train each network from scratch on the set, test once at the end.

    Attributes:
        epochs, batch, momentum, weight_decay, ema: of the training; the averaged weights are tested.
        lr: by architecture; "default" for the others. width: of all networks, 128 is the protocol's.
        repeats: independent trainings. split: "test" for the figure that is reported, "validation" for any choice.
    """

    epochs: int = 1000
    batch: int = 256
    lr: dict[str, float] = field(default_factory=lambda: {"default": 0.001, "VGG11": 0.0001})
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.995
    dsa: str = DSA_STRATEGY
    repeats: int = 5
    width: int = 128
    split: str = "test"

    def __post_init__(self):
        checked(self, epochs=">= 1", batch=">= 1", repeats=">= 1", width=">= 1", split=("validation", "test"), lr="> 0",
                momentum="in [0, 1)", weight_decay=">= 0", ema="in [0, 1)")
        DSA(self.dsa)
        if "default" not in self.lr:
            raise InputError("lr needs an entry 'default' for architectures that are not named")


@dataclass(frozen=True)
class Preset:
    """A named size of every experiment: the distillation, its learning rates per (algorithm, space), the evaluation.

    `iterations` and `lr` are looked up by (algorithm, space, IPC), (algorithm, space), algorithm, then taken from `distil`.
    `distil_at` holds what changes in the distillation at some image size, `evaluation_at` in the evaluation at some IPC.
    """

    distil: DistilConfig
    evaluation: EvalConfig
    lr: dict = field(default_factory=dict)
    iterations: dict = field(default_factory=dict)
    distil_at: dict = field(default_factory=dict)
    evaluation_at: dict = field(default_factory=dict)
    about: str = ""


_PAPER = Preset(
    DistilConfig(dataset="imagenette", size=128, iterations=5000, prior="cin256-v2", plan=AUTO),
    EvalConfig(),
    lr={"DC": 1e-3, "DM": 1e-2, "MTT": 10.0},
    distil_at={256: {"iterations": 10000, "sampler": SamplerConfig(steps=20)}},
    about="the paper's supplement: 128 px, T = 10, 5,000 iterations, 5,000 experts",
)
PRESETS = {
    "smoke": Preset(
        DistilConfig(iterations=2, batch_real=16, network=NetworkConfig(width=16), sampler=SamplerConfig(steps=2),
                     mtt=MTTConfig(experts=2, train_epochs=2, expert_epochs=1, max_start_epoch=1, steps=2, expert_lr=0.1,
                                   lr=0.1),
                     checkpoint_every=1),
        EvalConfig(epochs=3, repeats=2, width=16, lr={"default": 0.01}),
        about="seconds; shows that everything runs, measures nothing",
    ),
    "cpu": Preset(
        DistilConfig(iterations=60, batch_real=64, network=NetworkConfig(width=32),
                     mtt=MTTConfig(experts=10, train_epochs=8, expert_lr=0.02, expert_batch=64, expert_epochs=2,
                                   max_start_epoch=5, steps=10, lr=0.02, lr_lr=1e-5),
                     checkpoint_every=20),
        EvalConfig(epochs=150, width=32, ema=0.967,
                   lr={"default": 0.01, "AlexNet": 0.006, "VGG11": 0.002, "ResNet18": 0.03, "ViT": 0.001}),
        lr={("DC", "pixel"): 0.1, ("DC", "autoencoder"): 0.1, ("DC", "ld3m"): 1.0,
            ("DM", "pixel"): 0.1, ("DM", "autoencoder"): 0.3, ("DM", "ld3m"): 0.1,
            ("MTT", "pixel"): 30.0, ("MTT", "autoencoder"): 30.0, ("MTT", "ld3m"): 30.0,  # by `tune`, on validation
            # DM matches means: each of ten images gets a tenth of the gradient, so its rate is ten times that of one
            ("DM", "pixel", 10): 1.0, ("DM", "autoencoder", 10): 3.0, ("DM", "ld3m", 10): 1.0},
        evaluation_at={10: {"epochs": 60, "batch": 50, "ema": 0.917}},
        about="digits at 32 px on two CPU cores; widths, epochs, experts and iterations are shrunk",
    ),
    "gpu": Preset(
        replace(_PAPER.distil, iterations=1000, mtt=MTTConfig(experts=100)),
        EvalConfig(),
        lr=_PAPER.lr,
        about="as paper, with 1,000 iterations and 100 experts",
    ),
    "paper": _PAPER,
    "nette": Preset(
        replace(_PAPER.distil, iterations=1000, prior="imagenette-128", mtt=MTTConfig(experts=60, train_epochs=8)),
        EvalConfig(),
        lr=_PAPER.lr,
        distil_at=_PAPER.distil_at | {256: {"iterations": 1000, "sampler": SamplerConfig(steps=20)}},
        about="as paper, for ImageNette with the prior trained here: 1,000 iterations, 60 experts of 8 epochs",
    ),
    "nette-smoke": Preset(
        replace(_PAPER.distil, iterations=2, batch_real=4, prior="imagenette-128-cpu", network=NetworkConfig(width=8),
                sampler=SamplerConfig(steps=2), checkpoint_every=1,
                mtt=MTTConfig(experts=1, train_epochs=1, expert_epochs=1, max_start_epoch=0, steps=2)),
        EvalConfig(epochs=1, repeats=1, width=8),
        lr=_PAPER.lr,
        about="two iterations of nette, on a CPU; shows that its commands run, measures nothing",
    ),
    "reference": Preset(
        replace(_PAPER.distil, iterations=10000, redraw_noise=True, normalisation="reference-mismatch",
                mtt=MTTConfig(expert_epochs=2, max_start_epoch=2, steps=10, gradient="approximate")),
        EvalConfig(),
        lr={"DC": 0.1, "DM": 1.0, "MTT": 1000.0},
        about="the public code's defaults and variants, for comparison",
    ),
}


def _preset(name):
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose {', '.join(PRESETS)}")
    return PRESETS[name]


def preset(name, *, algorithm="DM", space="ld3m", **overrides):
    """The named preset's :class:`DistilConfig` for one algorithm and space, with some fields changed.

    Raises:
        ValueError: unknown preset, field or value; the message lists the choices.
    """
    chosen = _preset(name)
    within(algorithm, ALGORITHMS, "algorithm")
    within(space, SPACES, "space")
    known = {f.name for f in dataclasses.fields(DistilConfig)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise InputError(f"unknown setting {', '.join(unknown)}; DistilConfig has {', '.join(sorted(known))}")
    values = {"algorithm": algorithm, "space": space}
    for field_name, table in (("lr", chosen.lr), ("iterations", chosen.iterations)):
        for key in ((algorithm, space, overrides.get("ipc", 1)), (algorithm, space), algorithm):
            if key in table:
                values[field_name] = table[key]
                break
    at_size = chosen.distil_at.get(overrides.get("size", chosen.distil.size), {})
    return replace(chosen.distil, **values | at_size | overrides)


def eval_preset(name, *, ipc=1, **overrides):
    """The named preset's :class:`EvalConfig` at some IPC, with some fields changed."""
    chosen = replace(_preset(name).evaluation, **_preset(name).evaluation_at.get(ipc, {}))
    known = {f.name for f in dataclasses.fields(EvalConfig)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise InputError(f"unknown setting {', '.join(unknown)}; EvalConfig has {', '.join(sorted(known))}")
    return replace(chosen, **overrides)


def to_dict(config):
    """A configuration as nested dicts of JSON values."""
    return dataclasses.asdict(config)

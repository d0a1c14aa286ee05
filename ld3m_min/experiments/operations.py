"""Operations and memory of what a sweep makes, counted on tensors without data.

:mod:`ld3m_min.planner` counts an iteration of a distillation; here that is extended to whole cells,
their evaluation, experts and priors. Augmentation, optimisers and the test are left out: they are
small, and where seconds come from records they are in the seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ld3m_min.backprop import ONE_PASS
from ld3m_min.config import ARCHITECTURES, DistilConfig, NetworkConfig
from ld3m_min.errors import InputError
from ld3m_min.experiments.cells import Cell
from ld3m_min.networks import build_network
from ld3m_min.planner.counter import Counter, on_meta
from ld3m_min.planner.forecast import forecast, forecast_matching
from ld3m_min.presets import eval_preset
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.prior.presets import FINE_TUNE_PRESETS, PRIOR_PRESETS
from ld3m_min.prior.style_config import STYLE_PRESETS
from ld3m_min.prior.style_gan import StyleGenerator, build_style
from ld3m_min.sampler import SamplerConfig
from ld3m_min.spaces.build import SPACES

CLASSES = 10  # of every grid
TRAINING_IMAGES = {"digits": 1000, "letters": 1000, "imagenette": 11605}  # of the training split
PASSES = 3  # of a training step, in forward passes: forward, and backward to inputs and weights


@dataclass(frozen=True)
class Operations:
    """What was counted.

    Attributes:
        flops: a multiply-add counts as 2.
        peak: the most that tensors occupy at once, bytes.
        numbers: that are learned, or kept.
    """

    flops: float = 0.0
    peak: int = 0
    numbers: int = 0

    def times(self, factor: float) -> Operations:
        """As many times the work, in the same memory.

        Args:
            factor: at least 0.
        """
        return replace(self, flops=factor * self.flops)


def distillation(cell: Cell) -> Operations:
    """The iterations of a cell; nothing where nothing is learned.

    Args:
        cell: of a grid.
    """
    if cell.system.how != "learned":
        return Operations()
    config = cell.config()
    return _iteration(config).times(config.iterations)


def evaluation(cell: Cell) -> Operations:
    """The trainings of every architecture on the set of a cell.

    Args:
        cell: of a grid.
    """
    config = cell.config()
    each = _images_of_a_class(config)
    protocol = eval_preset(cell.preset, ipc=cell.ipc, per_class=each)
    seen, peak = CLASSES * each * protocol.epochs * protocol.repeats, 0
    flops = 0.0
    for name in ARCHITECTURES:
        width, batch = protocol.width, min(protocol.batch, CLASSES * each)
        step = _step(NetworkConfig(name, width=width), config.size, batch)
        flops, peak = flops + step.flops / batch * seen, max(peak, step.peak)
    return Operations(flops, peak)


def experts(cell: Cell) -> Operations:
    """The training of all experts that a cell needs; `numbers` are those of their trajectories.

    Args:
        cell: that matches trajectories.
    """
    config, m = cell.config(), cell.config().mtt
    epochs = m.max_start_epoch + m.expert_epochs
    step = _step(config.network, config.size, m.expert_batch)
    seen = m.experts * epochs * TRAINING_IMAGES[cell.dataset]
    kept = m.experts * (epochs + 1) * step.numbers
    return Operations(step.flops / m.expert_batch * seen, step.peak, kept)


@cache
def prior(name: str) -> Operations:
    """The training of a prior, or its fine-tuning; `numbers` are its weights.

    Args:
        name: of a preset.
    """
    made = _untrained(name)
    if isinstance(made, StyleGenerator):
        style = STYLE_PRESETS[name]
        one = _generated(made, 1, grad=False)
        weights = sum(p.numel() for p in made.parameters())
        # the critic is about as large, and looks at real and at generated images
        return Operations(3 * PASSES * one.flops * style.batch * style.steps, one.peak, weights)
    assert isinstance(made, LatentDiffusionPrior), "there is no other kind"
    meta = on_meta(made)
    weights = sum(p.numel() for m in made.modules for p in m.parameters())
    tuned = FINE_TUNE_PRESETS.get(name)
    size = PRIOR_PRESETS[name].size if tuned is None else tuned.size
    side = size // made.factor
    x = torch.empty(1, 3, size, size, device="meta")
    z = torch.empty(1, made.latent_channels, side, side, device="meta")
    c = torch.empty(1, *made.condition_shape, device="meta")
    t = torch.zeros(1, dtype=torch.long, device="meta")
    denoiser = _counted(lambda: meta.predict_noise(z, t, c))
    if tuned:
        return Operations(PASSES * denoiser.flops * tuned.batch * tuned.steps, 0, weights)
    config = PRIOR_PRESETS[name]
    autoencoder = _counted(lambda: meta.decode(meta.encode(x)))
    # those at 64 px start from an autoencoder that is kept
    vae_steps = 0 if name.startswith("imagenette-64") else config.vae_steps
    flops = autoencoder.flops * vae_steps * config.vae_batch
    flops += denoiser.flops * config.unet_steps * config.unet_batch
    peak = PASSES * max(autoencoder.peak * config.vae_batch, denoiser.peak * config.unet_batch)
    return Operations(PASSES * flops, peak, weights)


def _iteration(config: DistilConfig) -> Operations:
    """One iteration of a distillation: the loss, and the pass of a generator where there is one."""
    each = _images_of_a_class(config)
    loss = _matching(
        DistilConfig(
            algorithm=config.algorithm,
            space="pixel",
            size=config.size,
            batch_real=config.batch_real,
            network=config.network,
            mtt=config.mtt,
        ),
        each,
    )
    if not SPACES[config.space].needs_prior:  # storage of as many numbers as pixels
        return replace(loss, numbers=CLASSES * config.ipc * 3 * config.size**2)
    generator, images = _untrained(config.prior), CLASSES * each
    if generator is None:
        raise InputError(f"the prior {config.prior!r} has no preset, so its work can't be counted")
    steps = config.sampler.steps if config.space == "ld3m" else 0
    if isinstance(generator, StyleGenerator):
        made = _generated(generator, images, grad=True)
    elif steps <= 2:
        made = _pass(config.prior, config.size, images, steps)
    else:  # a line in the number of steps
        one, two = (_pass(config.prior, config.size, images, n) for n in (1, 2))
        flops = one.flops + (steps - 1) * (two.flops - one.flops)
        made = Operations(flops, one.peak + (steps - 1) * (two.peak - one.peak), one.numbers)
    return Operations(loss.flops + made.flops, loss.peak + made.peak, made.numbers)


@cache
def _matching(config: DistilConfig, each: int) -> Operations:
    """The distillation loss of one iteration, from images to their gradient."""
    found = forecast_matching(config, CLASSES, each)
    return Operations(found.flops, found.peak_bytes)


@cache
def _pass(prior: str, size: int, images: int, steps: int) -> Operations:
    """Forward and backward pass of a generator of so many steps; 0 for its decoder alone."""
    generator = _untrained(prior)
    assert isinstance(generator, LatentDiffusionPrior), "no other has steps"
    config = DistilConfig(
        space="ld3m" if steps else "autoencoder",
        size=size,
        ipc=images // CLASSES,
        sampler=SamplerConfig(steps=max(1, steps)),
    )
    found = forecast(generator, config, ONE_PASS, matching=False, classes=CLASSES)
    side = size // generator.factor
    return Operations(found.flops, found.total_bytes, images * generator.latent_channels * side**2)


def _images_of_a_class(config: DistilConfig) -> int:
    """How many images of a class a set of this configuration has."""
    kind = SPACES[config.space]
    return kind.per_class(config, _untrained(config.prior) if kind.needs_prior else None)


@cache
def _untrained(name: str) -> AnyPrior | None:
    """A prior of the architecture of a preset, which need not have been trained; None for others.

    Args:
        name: of a preset, or of what a preset is fine-tuned from.
    """
    if name in FINE_TUNE_PRESETS:
        return _untrained(FINE_TUNE_PRESETS[name].prior)
    classes = [str(k) for k in range(CLASSES)]
    if name in STYLE_PRESETS:
        return build_style(STYLE_PRESETS[name].architecture, classes)
    return build_prior(PRIOR_PRESETS[name], classes) if name in PRIOR_PRESETS else None


@cache
def _step(network: NetworkConfig, size: int, images: int) -> Operations:
    """A training step of one network; `numbers` are its parameters."""
    n = network
    made = build_network(
        n.name, classes=CLASSES, size=size, depth=n.depth, width=n.width, norm=n.norm
    )
    made.to("meta").eval()  # dropout would draw
    x = torch.empty(images, 3, size, size, device="meta")
    numbers = sum(p.numel() for p in made.parameters())
    found = _counted(lambda: torch.autograd.backward(made(x).sum()), grad=True)
    return replace(found, numbers=numbers)


def _generated(prior: StyleGenerator, images: int, *, grad: bool) -> Operations:
    """One pass of a style-based generator, with its backward pass where codes are learned."""
    meta = deepcopy(prior).to("meta")
    assert meta.architecture is not None, "it is one of ours"
    w = torch.empty(images, prior.num_ws, meta.architecture.w_width, device="meta")
    w.requires_grad_(grad)

    def once() -> None:
        made = meta.synthesize(w)
        if grad:
            torch.autograd.backward(made.sum())

    return replace(_counted(once, grad=grad), numbers=w.numel())


def _counted(once: Callable[[], Tensor | None], *, grad: bool = False) -> Operations:
    """What a call on tensors without data takes.

    Args:
        once: is called.
        grad: whether it goes backwards too.
    """
    with torch.set_grad_enabled(grad), Counter() as counter:
        once()
    return Operations(counter.flops, counter.peak)

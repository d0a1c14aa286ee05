"""What a configuration will cost before it starts: peak memory and operations (section 3.3).

:mod:`ld3m_min.planner.counter` counts both while one iteration runs on tensors without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.backends import Prepared, prepared
from ld3m_min.backprop import Plan, decode_with_plan, generate_with_plan, ordered_plans
from ld3m_min.config import DistilConfig
from ld3m_min.data.dataset import ImageDataset
from ld3m_min.data.splits import DataSplits
from ld3m_min.distillers import DISTILLERS
from ld3m_min.networks import build_network
from ld3m_min.planner.counter import Counter, fused_attention, on_meta
from ld3m_min.planner.phases import Phases, phases_of
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.spaces.build import SPACES


@dataclass(frozen=True)
class Forecast:
    """What one iteration is predicted to need under a plan.

    Attributes:
        name: of the plan.
        plan: what it was counted under.
        peak_bytes: the most that tensors made during an iteration occupy at once.
        held_bytes: what the generator's forward pass leaves for its backward pass.
        weight_bytes: the prior's parameters, there all the time.
        flops: of one iteration, recomputation included; a multiply-add counts as 2.
        seconds: of one forward and backward pass of the generator, where it was measured.

    Example:
        >>> from ld3m_min.backprop import Plan
        >>> from ld3m_min.planner import Forecast
        >>> row = Forecast("mine", Plan(), 3 * 2**30, 0, weight_bytes=2**30, flops=0)
        >>> f"{row.total_bytes / 2**30:.0f} GiB"
        '4 GiB'
    """

    name: str
    plan: Plan
    peak_bytes: int
    held_bytes: int
    weight_bytes: int
    flops: int
    seconds: float | None = None

    @property
    def total_bytes(self) -> int:
        """Peak with the weights: what has to fit."""
        return self.peak_bytes + self.weight_bytes


class Codes(NamedTuple):
    """What a generator makes images of (section 3.2).

    Attributes:
        Z: latent codes, which require gradients.
        c: conditioning codes, which require gradients; None for an unconditional prior.
        noise: of the forward process.
    """

    Z: Float[Tensor, "B c h w"]
    c: Float[Tensor, "B L D"] | None
    noise: Float[Tensor, "B c h w"]


def weights_of(prior: LatentDiffusionPrior, plan: Plan) -> list[Tensor]:
    """Every parameter and buffer that a plan holds.

    These are the prior's, and those of its copy in another precision or format.

    Args:
        prior: on any device.
        plan: names precision and format.
    """
    fast = prepared(prior, plan)
    copies = fast.copies if isinstance(fast, Prepared) else []
    return [t for m in [*prior.modules, *copies] for t in (*m.parameters(), *m.buffers())]


def forecast(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    plan: Plan,
    *,
    device: str | torch.device = "cpu",
    name: str = "",
    matching: bool | Forecast = True,
    classes: int | None = None,
) -> Forecast:
    """Count one iteration under a plan, without running it.

    Args:
        prior: on any device; not touched.
        config: of the distillation.
        plan: what is recomputed, and how the networks are run.
        device: what it is counted for; it need not be there.
        name: of the plan.
        matching: count the distillation loss too, not the generator alone. What
            :func:`forecast_matching` counted is not counted again.
        classes: of the data; None takes the prior's.
    """
    meta, eager = on_meta(prior), replace(plan, compile="off")  # what is compiled can't be counted
    weights = weights_of(meta, eager)
    each = SPACES[config.space].per_class(config, meta)
    count = classes or max(1, len(prior.classes))

    def counted(n: int, plan: Plan) -> Phases:
        drawn = _codes(meta, config, "meta", n)
        with Counter(weights) as counter, fused_attention(device):
            images = generate_images(meta, config, plan, drawn)
            forward, held = counter.peak, counter.now
            counter.peak = held
            images.backward(torch.zeros_like(images))
        return Phases(forward, held, counter.peak, counter.flops)

    one = _codes(meta, config, "meta", 1)
    made_of = sum(t.numel() * t.element_size() for t in one if t is not None)
    found = phases_of(counted, eager, each * count, 12 * config.size**2, made_of)
    peak, flops = max(found.forward, found.backward), found.flops
    if matching:
        loss = forecast_matching(config, count, each) if matching is True else matching
        peak, flops = max(peak, found.held + loss.peak_bytes), flops + loss.flops
    size = sum(t.numel() * t.element_size() for t in weights)
    return Forecast(name, plan, peak, found.held, size, flops)


def forecast_matching(config: DistilConfig, classes: int, each: int) -> Forecast:
    """Count the distillation loss of one iteration alone, where no prior makes the images.

    Args:
        config: of the distillation.
        classes: of the data.
        each: synthetic images of a class.
    """
    shape = classes * each, 3, config.size, config.size
    images = torch.empty(shape, device="meta").requires_grad_()
    with Counter([images]) as counter:
        _match(config, images, classes)
    return Forecast("matching", Plan(), counter.peak, 0, 0, counter.flops)


def codes(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    device: str | torch.device,
    classes: int | None = None,
) -> Codes:
    """Random codes of the size that a configuration learns.

    Args:
        prior: that will decode them.
        config: says how many images, and of what size.
        device: where they are.
        classes: of the data; None takes the prior's.
    """
    each = SPACES[config.space].per_class(config, prior)
    return _codes(prior, config, device, each * (classes or max(1, len(prior.classes))))


def _codes(
    prior: LatentDiffusionPrior, config: DistilConfig, device: str | torch.device, n: int
) -> Codes:
    """Random codes of n images; see :func:`codes`."""
    side = config.size // prior.factor
    generator = torch.Generator().manual_seed(config.seed)
    shape = n, prior.latent_channels, side, side
    Z, noise = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    c = None
    if prior.conditional:
        c = torch.randn((n, *prior.condition_shape), generator=generator).to(device)
        c.requires_grad_()
    return Codes(Z.requires_grad_(), c, noise)


def generate_images(
    prior: LatentDiffusionPrior, config: DistilConfig, plan: Plan, codes: Codes
) -> Float[Tensor, "B 3 H W"]:
    """The images of a configuration's space, as an iteration makes them.

    Args:
        prior: the frozen generator.
        config: names the space and the sampler.
        plan: what is recomputed, and how the networks are run.
        codes: what they are made of; only Z in the space of an autoencoder.
    """
    if config.space != "ld3m":
        return decode_with_plan(prior, codes.Z, plan)
    sampler = replace(config.sampler, eta=0.0)  # the noise of eta > 0 is drawn from values
    return generate_with_plan(prior, codes.Z, codes.c, codes.noise, sampler, plan)


def _match(config: DistilConfig, images: Float[Tensor, "B 3 H W"], classes: int) -> None:
    """The distillation loss of one iteration, by the distiller itself, on data without content.

    Args:
        config: names the distiller.
        images: on meta; their gradient is filled.
        classes: of the data.
    """
    labels = torch.arange(classes).repeat_interleave(config.batch_real)
    shape = len(labels), 3, config.size, config.size
    pixels = torch.empty(shape, dtype=torch.uint8, device="meta")
    split = ImageDataset(pixels, labels, tuple(map(str, range(classes))), "train")
    data = DataSplits("meta", split, split, split, mean=(0.5,) * 3, std=(0.5,) * 3)
    matches_experts = config.algorithm == "MTT"
    options: dict[str, Any] = {"experts": _NoExperts(config, data)} if matches_experts else {}
    distiller = DISTILLERS[config.algorithm](config, data, "meta", **options)
    own = torch.arange(classes).repeat_interleave(len(images) // classes)
    distiller.step(images, own.to("meta") if matches_experts else own, 0)


class _NoExperts:
    """Trajectories of the right length and no content.

    Args:
        config: names the network.
        data: gives its size and number of classes.
    """

    def __init__(self, config: DistilConfig, data: DataSplits) -> None:
        n = config.network
        network = build_network(
            n.name,
            classes=len(data.classes),
            size=data.size,
            depth=n.depth,
            width=n.width,
            norm=n.norm,
        )
        self._size = sum(p.numel() for p in network.parameters())

    def __len__(self) -> int:
        return 1

    def check(self, config: DistilConfig, data: DataSplits) -> None:
        """They fit any configuration."""

    def read(self, which: int, epochs: Sequence[int]) -> Float[Tensor, "n P"]:
        """Parameters on meta, a row for each epoch.

        Args:
            which: of the experts.
            epochs: that are asked for.
        """
        return torch.empty((len(epochs), self._size), device="meta")


def forecasts(
    prior: LatentDiffusionPrior,
    config: DistilConfig,
    *,
    device: str | torch.device = "cpu",
    matching: bool = True,
    classes: int | None = None,
) -> Iterator[Forecast]:
    """A forecast for each plan of :func:`ld3m_min.backprop.ordered_plans`, the fastest first.

    They are made one by one, as they are asked for, in the precision and format of `config.plan`.
    CUDA graphs cannot be recomputed: in place of compile="reduce-overhead", plans that recompute
    have "default".

    Args:
        prior: on any device; not touched.
        config: of the distillation.
        device: what is counted for; it need not be there.
        matching: count the distillation loss too, not the generator alone.
        classes: of the data; None takes the prior's.

    Example:
        >>> from ld3m_min import LatentDiffusionPrior, preset
        >>> from ld3m_min.planner import forecasts
        >>> prior = LatentDiffusionPrior.from_pretrained("digits")
        >>> rows = forecasts(prior, preset("smoke"), matching=False)
        >>> [row.name for _, row in zip(range(2), rows)]  # counted when asked for
        ['one-pass', 'decoder']
    """
    given = config.plan
    loss: bool | Forecast = False
    if matching:  # the same under every plan
        each = SPACES[config.space].per_class(config, prior)
        loss = forecast_matching(config, classes or max(1, len(prior.classes)), each)
    for name, plan in ordered_plans(config.sampler.steps).items():
        graphs = given.compile == "reduce-overhead"
        plan = replace(
            plan,
            precision=given.precision,
            channels_last=given.channels_last,
            compile="default" if graphs and plan.recomputes else given.compile,
        )
        yield forecast(
            prior, config, plan, device=device, name=name, matching=loss, classes=classes
        )

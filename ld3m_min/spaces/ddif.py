"""Images as small networks of the coordinates (DDiF, arXiv 2503.04835).

Such a network, a neural field, takes the place of a pixel and gives its colour. It has far fewer
numbers than an image has, so a class has more images in the place of `ipc`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.spaces.base import Space

AT_ONCE = 2**25  # numbers of a hidden layer over images and pixels; more are recomputed in parts
COORDINATES, COLOURS = 2, 3


class DDiFSpace(Space):
    """The numbers of neural fields with sines between their layers (SIREN), one for each image.

    Args:
        fields: numbers to start from, (B, n), a row for each image: layer by layer the weights, a
            row for each output, then the biases.
        config: says the layers, and the size of the images.
        targets: real images that :meth:`begin` brings the fields to; None for none.

    Raises:
        InputError: rows of another length.

    Example:
        >>> import torch
        >>> from ld3m_min import DistilConfig
        >>> from ld3m_min.spaces import DDiFSpace
        >>> config = DistilConfig(space="ddif")
        >>> space = DDiFSpace(torch.zeros(2, 81), config)
        >>> DDiFSpace.per_class(config), tuple(space.images().shape)
        (37, (2, 3, 32, 32))
    """

    needs_prior = False
    saves = ("fields",)

    def __init__(
        self,
        fields: Tensor,
        config: DistilConfig,
        targets: Float[Tensor, "B 3 H W"] | None = None,
    ) -> None:
        super().__init__({"fields": fields})
        self._config, self._targets = config, targets
        n = field_numbers(config)
        if fields.dim() != 2 or fields.shape[1] != n:
            raise InputError(
                f"fields are {tuple(fields.shape)}, but must have {n} numbers for each image, as "
                f"the layers {field_layers(config)} take"
            )

    @classmethod
    def per_class(cls, config: DistilConfig, prior: AnyPrior | None = None) -> int:
        """As many fields as `ipc` images have room for: ipc 3 H W / numbers of a field, downwards.

        Args:
            config: says size and layers.
            prior: not looked at.

        Raises:
            InputError: a field has more numbers than the images.
        """
        room, n = config.ipc * COLOURS * config.size**2, field_numbers(config)
        if n > room:
            raise InputError(
                f"a neural field of {n} numbers is larger than the {room} of ipc = {config.ipc}; "
                "lower ddif.width or ddif.hidden, or raise ipc"
            )
        return room // n

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> DDiFSpace:
        """Fields drawn at random, which :meth:`begin` brings to the images.

        Args:
            config: says the layers, the fit, and the seed of the draws.
            images: in [0, 1].
            labels: not looked at.
            prior: not looked at.

        Returns:
            The space.
        """
        generator = seeded(config.seed, "neural fields")
        return cls(drawn_fields(config, len(images), generator).to(images), config, images)

    @classmethod
    def restore(
        cls,
        config: DistilConfig,
        state: Mapping[str, Tensor],
        prior: AnyPrior | None,
    ) -> DDiFSpace:
        """The space of saved fields.

        Args:
            config: says layers and size.
            state: holds the fields.
            prior: not looked at.

        Returns:
            The space.

        Raises:
            InputError: they have other layers.
        """
        return cls(state["fields"], config)

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The colours of all pixels, cut off below 0 and above 1."""
        return self._colours().clamp(0, 1)

    def _colours(self) -> Float[Tensor, "B 3 H W"]:
        """What the fields give; where that is much, in parts that the backward pass recomputes."""
        fields, config = self.parameters["fields"], self._config
        widest = max(outputs for _, outputs in field_layers(config))
        parts = torch.split(fields, max(1, AT_ONCE // (widest * config.size**2)))
        if len(parts) == 1:
            return evaluated(fields, config)
        return torch.cat(
            [
                checkpoint(evaluated, x, config, use_reentrant=False, preserve_rng_state=False)
                for x in parts
            ]
        )

    @torch.enable_grad()
    def begin(self) -> None:
        """Bring the fields to their images, by Adam on the mean squared error of each.

        Raises:
            InputError: the fit ends in what is not finite.
        """
        if self._targets is None:
            return
        targets, self._targets = self._targets, None
        fields, own = self.parameters["fields"], self._config.ddif
        adam = torch.optim.Adam([fields], lr=own.fit_lr)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, own.fit_steps))
        for _ in range(own.fit_steps):
            adam.zero_grad()
            # each field has a loss of its own: they share nothing
            (self._colours() - targets).square().mean((1, 2, 3)).sum().backward()
            adam.step()
            falling.step()
        fields.grad = None
        if not torch.isfinite(fields).all():
            raise InputError(
                f"the fit of the neural fields to real images is not finite at its end; lower "
                f"ddif.fit_lr = {own.fit_lr:g}"
            )


def field_layers(config: DistilConfig) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer of a field: 2 -> d -> ... -> d -> 3.

    Args:
        config: says the width d and the layers between; where it leaves them open, as
            :class:`~ld3m_min.config.DDiFConfig` says.
    """
    small = config.size <= 32
    width, hidden = config.ddif.width, config.ddif.hidden
    if width is None:
        width = 6 if small else config.size * 20 // 128
    if hidden is None:
        hidden = 1 if small else 2
    return [(COORDINATES, width), *[(width, width)] * hidden, (width, COLOURS)]


def field_numbers(config: DistilConfig) -> int:
    """How many numbers a field has: weights and biases.

    With two layers from d to d these are 2 d² + 8 d + 3.

    Args:
        config: says the layers.
    """
    return sum((inputs + 1) * outputs for inputs, outputs in field_layers(config))


def drawn_fields(
    config: DistilConfig, count: int, generator: torch.Generator
) -> Float[Tensor, "B n"]:
    """Fields with random numbers, as SIREN draws them (Sitzmann et al. 2020, section 3.2).

    Weights of a layer of k inputs are uniform within sqrt(6 / k) / frequency, those of the first
    one within 1 / k, biases within 1 / sqrt(k).

    Args:
        config: says the layers.
        count: of fields.
        generator: of the draws, on the CPU.
    """
    bounds = []
    for i, (inputs, outputs) in enumerate(field_layers(config)):
        weights = math.sqrt(6 / inputs) / config.ddif.hidden_frequency if i else 1 / inputs
        bounds += [weights] * (inputs * outputs) + [1 / math.sqrt(inputs)] * outputs
    bound = torch.tensor(bounds)
    return (2 * torch.rand(count, len(bound), generator=generator) - 1) * bound


def evaluated(fields: Float[Tensor, "B n"], config: DistilConfig) -> Float[Tensor, "B 3 H W"]:
    """The colours that fields give at the pixels of an image, all fields at once.

    A layer is sin(frequency (W x + b)), the last one W x + b. The coordinates reach from -1 to 1,
    the first one downwards, the second one to the right.

    Args:
        fields: numbers, a row for each field.
        config: says the layers and the size.

    Returns:
        The colours, not cut off.
    """
    line = torch.linspace(-1, 1, config.size, device=fields.device, dtype=fields.dtype)
    x = torch.stack(torch.meshgrid(line, line, indexing="ij")).flatten(1)
    x = x.expand(len(fields), -1, -1)  # B x 2 x H W
    layers, own = field_layers(config), config.ddif
    parts = iter(fields.split([n for i, o in layers for n in (i * o, o)], 1))
    for k, (inputs, outputs) in enumerate(layers):
        weights, biases = next(parts).unflatten(1, (outputs, inputs)), next(parts)[:, :, None]
        x = torch.baddbmm(biases, weights, x)
        if k + 1 < len(layers):
            x = torch.sin((own.hidden_frequency if k else own.first_frequency) * x)
    return x.reshape(len(fields), COLOURS, config.size, config.size)

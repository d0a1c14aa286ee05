"""GLaD's codes, through a style-based generator (section 2.3; Cazenavette et al., 2023).

In W+ the code of every layer is learned. In F_n the features after layer n are learned, and the
codes of the later layers with them; what came before them plays no part any more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.backprop import ONE_PASS, Plan, in_chunks
from ld3m_min.config import DistilConfig
from ld3m_min.errors import InputError
from ld3m_min.prior.loading import AnyPrior
from ld3m_min.prior.style_codes import (
    Inversion,
    check_size,
    first_features,
    invert,
    mapped_noise,
    mean_codes,
)
from ld3m_min.prior.style_gan import StyleGenerator
from ld3m_min.spaces.base import Space


class StyleSpace(Space):
    """Codes of a style-based generator, and in F_n features.

    Args:
        prior: that makes the images.
        w: codes to start from; in F_n those of the later layers alone.
        features: after `layer` layers; None in W+.
        layer: n; 0 in W+.
        plan: how many images pass the generator at a time, and how often.
        w_lr: learning rate of w in F_n, as a multiple of that of the features.
    """

    prior_kind = StyleGenerator
    starts_from_classes = True

    def __init__(
        self,
        prior: StyleGenerator,
        w: Float[Tensor, "B num_ws D"],
        features: Tensor | None = None,
        *,
        layer: int = 0,
        plan: Plan = ONE_PASS,
        w_lr: float = 1.0,
    ) -> None:
        learned = {"w": w} if features is None else {"features": features, "w": w}
        super().__init__(learned, plan=plan)
        self.prior, self.layer = prior, layer
        if features is not None:
            self.rates = {"w": w_lr}

    @classmethod
    def build(
        cls,
        config: DistilConfig,
        images: Float[Tensor, "B 3 H W"],
        labels: Int[Tensor, " B"],
        prior: AnyPrior | None,
    ) -> StyleSpace:
        """The codes that `config.glad` says to start from.

        Args:
            config: says where to start, and n.
            images: in [0, 1]; looked at where they are to be inverted.
            labels: of the images.
            prior: that will make the images.

        Returns:
            The space; its `notes` say how long the start took, and how near it came.

        Raises:
            InputError: the generator lacks the layer, has no classes where they are needed, or
                makes images of another size; or the memory plan is not for it.
        """
        assert isinstance(prior, StyleGenerator)
        layer = cls._layer(config, prior)
        check_size(prior, images.shape[-1])
        if prior.class_count == 0 and config.glad.start == "mean":
            raise InputError(
                "glad.start 'mean' is the mean code of a class, and this generator has no classes; "
                "take 'noise' or 'invert'"
            )
        found = _start(config, images, labels, prior, layer)
        space = cls(
            prior,
            found.w[:, prior.synthesis.first_w(layer) :],
            found.features,
            layer=layer,
            plan=_plan(config.plan),
            w_lr=config.glad.w_lr,
        )
        space.notes = {"start": config.glad.start, "seconds": round(found.seconds, 2)}
        if config.glad.start == "invert":
            space.notes["psnr"] = round(found.psnr.mean().item(), 2)
        return space

    @classmethod
    def restore(
        cls, config: DistilConfig, state: Mapping[str, Tensor], prior: AnyPrior | None
    ) -> StyleSpace:
        """The space of saved codes.

        Args:
            config: of the distillation.
            state: holds w and, in F_n, the features.
            prior: that makes the images.

        Returns:
            The space.

        Raises:
            InputError: the generator lacks the layer.
        """
        assert isinstance(prior, StyleGenerator)
        layer = cls._layer(config, prior)
        return cls(prior, state["w"], state.get("features"), layer=layer, plan=_plan(config.plan))

    @classmethod
    def shared_weights(cls, config: DistilConfig, prior: AnyPrior) -> list[Tensor]:
        """Those of the layers that read w or features; arguments as in :class:`Space`."""
        assert isinstance(prior, StyleGenerator)
        return prior.synthesis.weights_after(cls._layer(config, prior))

    @classmethod
    def _layer(cls, config: DistilConfig, prior: StyleGenerator) -> int:
        """The layer n of a configuration in this space.

        Raises:
            InputError: the generator has no such layer.
        """
        return 0

    def images(self) -> Float[Tensor, "B 3 H W"]:
        """The images of the codes."""
        before = self.prior.synthesis.first_w(self.layer)

        def made(w: Tensor, features: Tensor | None) -> Tensor:
            whole = F.pad(w, (0, 0, before, 0))  # those before the features play no part
            return self.prior.synthesize(whole, features=features, layer=self.layer)

        return in_chunks(made, self.plan, self.parameters["w"], self.parameters.get("features"))


class WPlusSpace(StyleSpace):
    """W+: the code of every layer is learned; arguments are those of :class:`StyleSpace`.

    Example:
        >>> import torch
        >>> from ld3m_min.prior import StyleGenerator
        >>> from ld3m_min.spaces import WPlusSpace
        >>> glad = StyleGenerator.from_pretrained("style-digits")
        >>> w = glad.map(torch.randn(2, glad.z_width), torch.tensor([3, 7]))
        >>> tuple(WPlusSpace(glad, w).images().shape)
        (2, 3, 32, 32)
    """

    saves = ("w",)


class FeatureSpace(StyleSpace):
    """F_n: features after a layer, and the codes of the later layers, are learned.

    Arguments are those of :class:`StyleSpace`.

    Example:
        >>> import torch
        >>> from ld3m_min import preset, prior, spaces
        >>> glad = prior.StyleGenerator.from_pretrained("style-digits")
        >>> start, config = torch.zeros(1, 3, 32, 32), preset("smoke", space="glad-f")
        >>> space = spaces.FeatureSpace.build(config, start, torch.tensor([3]), glad)
        >>> {name: tuple(x.shape) for name, x in space.parameters.items()}
        {'features': (1, 32, 16, 16), 'w': (1, 4, 64)}
    """

    saves = ("features", "w")

    @classmethod
    def _layer(cls, config: DistilConfig, prior: StyleGenerator) -> int:
        """The layer n of a configuration; see :meth:`StyleSpace._layer`."""
        prior.check_layer(config.glad.layer)
        return config.glad.layer


def _start(
    config: DistilConfig,
    images: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    prior: StyleGenerator,
    layer: int,
) -> Inversion:
    """Codes to start from, and what they took."""
    g = config.glad
    if g.start == "invert":
        return invert(
            prior, images, labels, layer=layer, steps=g.steps, samples=g.samples, seed=config.seed
        )
    began = time.perf_counter()
    if g.start == "mean":
        w = mean_codes(prior, labels, g.samples, config.seed)
    else:
        w = mapped_noise(prior, labels, config.seed)
    features = first_features(prior, w, layer) if layer else None
    none = torch.full((len(w),), float("nan"))
    return Inversion(w, features, none, time.perf_counter() - began)


def _plan(plan: Plan) -> Plan:
    """A memory plan as this space runs it: so many images at a time, in one pass or two.

    Raises:
        InputError: it asks for a backend that this generator is not run by.
    """
    if plan.precision != "float32" or plan.compile != "off" or plan.channels_last:
        raise InputError(
            "a style-based generator is run eagerly in float32; leave out plan.precision, "
            "plan.compile and plan.channels_last, or take another space"
        )
    return replace(plan, auto=False, probe=False)

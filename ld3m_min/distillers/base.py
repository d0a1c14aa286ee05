"""What the distillers share: which network, which augmentation, how real data are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.augment import DSA
from ld3m_min.config import DistilConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Network, build_network


@runtime_checkable
class Experts(Protocol):
    """Expert trajectories, as a distiller needs them; `ld3m_min.experts` has the real ones."""

    def __len__(self) -> int: ...

    def check(self, config: DistilConfig, data: DataSplits) -> None:
        """Refuse experts that do not fit a distillation, by an InputError."""
        ...

    def read(self, which: int, epochs: tuple[int, int]) -> Float[Tensor, "2 P"]:
        """Parameters of one expert after two of its epochs, flat, in definition order."""
        ...


AT_ONCE = 10  # classes whose images, and what networks make of them, are in memory together


class Pair(NamedTuple):
    """Images of one class, normalised and augmented by the same draw.

    Attributes:
        real: (n, 3, H, W), constant.
        synthetic: (m, 3, H, W), differentiable in the synthetic images.
    """

    real: Tensor
    synthetic: Tensor


class ClassPair(NamedTuple):
    """The :class:`Pair` of a class, and which class it is.

    Attributes:
        label: of the class.
        real: (n, 3, H, W), constant.
        synthetic: (m, 3, H, W), differentiable in the synthetic images.
    """

    label: int
    real: Tensor
    synthetic: Tensor


@dataclass(frozen=True)
class Pairs:
    """Real and synthetic images of an iteration, normalised and augmented, class after class.

    Attributes:
        classes: their labels, in the order in which images stand.
        real: constant.
        real_counts: real images of each class.
        synthetic: differentiable in the synthetic images of the iteration.
        synthetic_counts: synthetic images of each class.
    """

    classes: tuple[int, ...]
    real: Float[Tensor, "N 3 H W"]
    real_counts: list[int]
    synthetic: Float[Tensor, "B 3 H W"]
    synthetic_counts: list[int]

    def by_class(self) -> Iterator[ClassPair]:
        """Label, real images and synthetic images of each class."""
        reals = torch.split(self.real, self.real_counts)
        synthetics = torch.split(self.synthetic, self.synthetic_counts)
        for label, real, synthetic in zip(self.classes, reals, synthetics, strict=True):
            yield ClassPair(label, real, synthetic)


class _Classes(NamedTuple):
    """What the labels say: which classes, each one's positions in a row, how many of each."""

    classes: tuple[int, ...]
    order: Tensor
    counts: list[int]

    def part(self, first: int, end: int) -> _Classes:
        """The same of some classes, from the first up to the end."""
        before, inside = sum(self.counts[:first]), sum(self.counts[first:end])
        order = self.order[before : before + inside]
        return _Classes(self.classes[first:end], order, self.counts[first:end])


class Distiller:
    """One iteration of matching, for fixed data and configuration (section 2.1).

    Every draw belongs to (seed, purpose, iteration, class). So an iteration can be repeated without
    its predecessors.

    Args:
        config: of the distillation.
        data: whose training split is matched.
        device: where networks are built.
        experts: trajectories, for a distiller that needs them.

    Attributes:
        needs_experts: whether it does.
        adds_classes: whether the loss is a sum over the classes, so that :meth:`step` may be given
            some of them at a time.
        parameters: what the distiller itself learns, name -> leaf tensor (MTT's learning rate).

    Example:
        >>> from ld3m_min import load_data, preset
        >>> from ld3m_min.distillers import Distiller
        >>> data = load_data("digits")
        >>> distiller = Distiller(preset("smoke"), data)
        >>> pair = distiller.pair(data.test.float()[:2], label=3, iteration=0)
        >>> len(pair.real), len(pair.synthetic)
        (16, 2)
    """

    needs_experts: ClassVar[bool] = False
    adds_classes: ClassVar[bool] = False

    def __init__(
        self,
        config: DistilConfig,
        data: DataSplits,
        device: torch.device | str = "cpu",
        experts: Experts | None = None,
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.dsa = DSA(config.dsa)
        self.parameters: dict[str, Tensor] = {}
        self._seen: tuple[Tensor, _Classes] | None = None

    def step(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Float[Tensor, ""]:
        """The loss of one iteration, and its gradient.

        Args:
            images: in [0, 1]; a leaf whose `.grad` is filled.
            labels: of the images.
            iteration: 0-based; says what is drawn.

        Returns:
            The loss, detached.
        """
        raise TypeError(f"{type(self).__name__} is abstract; use DC, DM or MTT")

    def project(self) -> None:
        """Keep `parameters` in their bounds after an optimiser step."""

    def network(self, iteration: int) -> Network:
        """The freshly drawn network of an iteration, in training mode."""
        n = self.config.network
        network = build_network(
            n.name,
            classes=len(self.data.classes),
            size=self.data.size,
            depth=n.depth,
            width=n.width,
            norm=n.norm,
            generator=seeded(self.config.seed, "network", iteration),
        )
        return network.to(self.device).train()

    def pairs(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Pairs:
        """The real and synthetic images of an iteration.

        Real and synthetic images of a class share one draw of the augmentation (siamese).

        Args:
            images: synthetic ones, in [0, 1].
            labels: of the images.
            iteration: says what is drawn.

        Returns:
            The images of all classes.
        """
        return self._pairs(images, self._classes(labels), iteration)

    def groups(
        self, images: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], iteration: int
    ) -> Iterator[Pairs]:
        """What :meth:`pairs` holds, some classes after the others.

        So the memory of an iteration does not grow with the number of classes: who is done with a
        group brings its gradient to the images before the next one is drawn.

        Args:
            images: synthetic ones, in [0, 1].
            labels: of the images.
            iteration: says what is drawn.
        """
        found = self._classes(labels)
        for first in range(0, len(found.classes), AT_ONCE):
            yield self._pairs(images, found.part(first, first + AT_ONCE), iteration)

    def _pairs(self, images: Float[Tensor, "B 3 H W"], wanted: _Classes, iteration: int) -> Pairs:
        """The real and synthetic images of some classes; see :meth:`pairs`."""
        classes, order, synthetic_counts = wanted
        positions, draws = [], []
        for label in classes:
            generator = seeded(self.config.seed, "real", iteration, label)
            positions.append(
                self.data.train.draw_positions(label, self.config.batch_real, generator)
            )
            draws.append(
                self.dsa.draw(1, self.data.size, generator, siamese=True).to(images.device)
            )
        real_counts = [len(p) for p in positions]
        real = self.data.normalise(self.data.train.take(torch.cat(positions)).to(images))
        synthetic = self.data.normalise(images[order], synthetic=True)
        return Pairs(
            classes,
            self.dsa.apply_each(real, draws, real_counts),
            real_counts,
            self.dsa.apply_each(synthetic, draws, synthetic_counts),
            synthetic_counts,
        )

    def pair(self, synthetic: Float[Tensor, "m 3 H W"], label: int, iteration: int) -> Pair:
        """What :meth:`pairs` holds of one class, made by itself.

        Args:
            synthetic: images of the class, in [0, 1].
            label: of the class.
            iteration: says what is drawn.

        Returns:
            Real and synthetic images.
        """
        generator = seeded(self.config.seed, "real", iteration, label)
        real = self.data.train.sample_class(label, self.config.batch_real, generator)
        draw = self.dsa.draw(1, self.data.size, generator, siamese=True)
        real = self.data.normalise(real.to(synthetic))
        synthetic = self.data.normalise(synthetic, synthetic=True)
        return Pair(self.dsa.apply(real, draw), self.dsa.apply(synthetic, draw))

    def _classes(self, labels: Int[Tensor, " B"]) -> _Classes:
        """What the labels say; read from the device once for the labels of a run."""
        if self._seen is None or self._seen[0] is not labels:
            counts = torch.bincount(labels).tolist()
            classes = tuple(c for c, n in enumerate(counts) if n)
            order = labels.argsort(stable=True)
            self._seen = labels, _Classes(classes, order, [counts[c] for c in classes])
        return self._seen[1]

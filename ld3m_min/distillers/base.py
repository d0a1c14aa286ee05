"""What the distillers share: which network, which augmentation, how real data are drawn at an iteration."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from ..augment import DSA
from ..networks import build_network
from ..storage import seeded


@dataclass(frozen=True)
class Pairs:
    """Real and synthetic images of an iteration, normalised and augmented, class after class in the order of `classes`.

    Attributes:
        real: (N, 3, H, W), constant; `real_counts` of each class. synthetic: (B, 3, H, W), differentiable in the images of
            the iteration; `synthetic_counts` of each class.
    """

    classes: tuple[int, ...]
    real: torch.Tensor
    real_counts: list[int]
    synthetic: torch.Tensor
    synthetic_counts: list[int]

    def by_class(self):
        """(label, its real images, its synthetic images) for each class."""
        return zip(self.classes, self.real.split(self.real_counts), self.synthetic.split(self.synthetic_counts), strict=True)


class Distiller:
    """One iteration of matching, for fixed data and configuration.

    Every draw belongs to (seed, purpose, iteration, class): an iteration can be repeated without its predecessors.

    Attributes:
        parameters: what the distiller itself learns, name -> leaf tensor (MTT's learning rate).
    """

    def __init__(self, config, data, device="cpu"):
        self.config, self.data, self.device = config, data, device
        self.dsa = DSA(config.dsa)
        self.parameters = {}
        self._seen = None

    def step(self, images, labels, iteration):
        """The loss of one iteration.

        Args:
            images: (B, 3, H, W) in [0, 1], a leaf whose `.grad` is filled. labels: (B,) int64.

        Returns:
            The loss, a detached scalar.
        """
        raise TypeError(f"{type(self).__name__} is abstract; use DC, DM or MTT")

    def project(self):
        """Keep `parameters` in their bounds after an optimiser step."""

    def network(self, iteration):
        """The freshly drawn network of an iteration."""
        n = self.config.network
        generator = seeded(self.config.seed, "network", iteration)
        network = build_network(n.name, classes=len(self.data.classes), size=self.data.size, depth=n.depth, width=n.width,
                                norm=n.norm, generator=generator)
        return network.to(self.device).train()

    def pairs(self, images, labels, iteration):
        """The :class:`Pairs` of an iteration: each class's real and synthetic images share one draw (siamese)."""
        classes, order, synthetic_counts = self._classes(labels)
        positions, draws = [], []
        for label in classes:
            generator = seeded(self.config.seed, "real", iteration, label)
            positions.append(self.data.train.draw_positions(label, self.config.batch_real, generator))
            draws.append(self.dsa.draw(1, self.data.size, generator, siamese=True).to(images.device))
        real_counts = [len(p) for p in positions]
        real = self.data.normalise(self.data.train.take(torch.cat(positions)).to(images))
        synthetic = self.data.normalise(images[order], synthetic=True)
        return Pairs(classes, self.dsa.apply_each(real, draws, real_counts), real_counts,
                     self.dsa.apply_each(synthetic, draws, synthetic_counts), synthetic_counts)

    def pair(self, synthetic, label, iteration):
        """What :meth:`pairs` holds of one class, made by itself: (real, synthetic), augmented by the same draw."""
        generator = seeded(self.config.seed, "real", iteration, label)
        real = self.data.train.sample_class(label, self.config.batch_real, generator)
        draw = self.dsa.draw(1, self.data.size, generator, siamese=True)
        normalised = self.data.normalise(real.to(synthetic)), self.data.normalise(synthetic, synthetic=True)
        return tuple(self.dsa.apply(x, draw) for x in normalised)

    def _classes(self, labels):
        """Classes, positions class by class and counts; read from the device once for the labels of a run."""
        if self._seen is None or self._seen[0] is not labels:
            counts = torch.bincount(labels).tolist()
            classes = tuple(c for c, n in enumerate(counts) if n)
            self._seen = labels, (classes, labels.argsort(stable=True), [counts[c] for c in classes])
        return self._seen[1]

"""What the distillers share: which network, which augmentation, how real data are drawn at an iteration."""
from __future__ import annotations

from ..augment import DSA
from ..networks import build_network
from ..storage import seeded


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

    def pair(self, synthetic, label, iteration):
        """Real and synthetic images of one class, normalised and augmented by the same draw (siamese)."""
        generator = seeded(self.config.seed, "real", iteration, label)
        real = self.data.train.sample_class(label, self.config.batch_real, generator)
        draw = self.dsa.draw(1, self.data.size, generator, siamese=True)
        normalised = self.data.normalise(real.to(synthetic)), self.data.normalise(synthetic, synthetic=True)
        return tuple(self.dsa.apply(x, draw) for x in normalised)

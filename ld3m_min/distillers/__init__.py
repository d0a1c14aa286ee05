"""The three distillation losses of section 2.1, and the distillers that feed them with real data.

Each loss is a pure function. A distiller draws the real images (or the expert) of an iteration, and
lets the loss fill the gradient of the synthetic images.

To add a distiller, write a subclass of :class:`Distiller` in a file of its own and add it to
`DISTILLERS`.
"""

from ld3m_min.distillers.base import Distiller
from ld3m_min.distillers.dc import DC, gradient_matching_distance
from ld3m_min.distillers.dm import DM, distribution_matching_loss
from ld3m_min.distillers.mtt import MTT, trajectory_matching_loss

DISTILLERS: dict[str, type[Distiller]] = {
    "DC": DC,
    "DM": DM,
    "MTT": MTT,
}

__all__ = [
    "DC",
    "DISTILLERS",
    "DM",
    "MTT",
    "Distiller",
    "distribution_matching_loss",
    "gradient_matching_distance",
    "trajectory_matching_loss",
]

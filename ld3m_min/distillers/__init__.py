"""The three distillation losses of section 2.1 and the distillers that feed them with real data.

Each loss is a pure function; a distiller only draws the real images (or the expert) of an iteration and lets the loss
fill the gradient of the synthetic images.
"""
from .dc import DC, gradient_matching_distance
from .dm import DM, distribution_matching_loss
from .mtt import MTT, trajectory_matching_loss

DISTILLERS = {"DC": DC, "DM": DM, "MTT": MTT}

__all__ = [
    "DC",
    "DISTILLERS",
    "DM",
    "MTT",
    "distribution_matching_loss",
    "gradient_matching_distance",
    "trajectory_matching_loss",
]

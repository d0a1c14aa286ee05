"""How alike two images are, without any network: an autoencoder's losses, and the measure SSIM.

The public autoencoders are trained with LPIPS and a discriminator, that is, with weights from
elsewhere and with an adversary that has to be tuned. These terms need neither. An L1 distance does
not average as a squared one does, a Laplacian pyramid weighs edges at every scale, and SSIM
compares local contrast. The paper trains no prior; ours are made with these (section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def ssim(
    x: Float[Tensor, "B C H W"], y: Float[Tensor, "B C H W"], window: int = 7
) -> Float[Tensor, " B"]:
    """Structural similarity of images in [0, 1], 1 where they are equal (Wang et al., 2004).

    Uniform windows without padding; the constants are those of the original, for a range of 1.

    Args:
        x: images in [0, 1].
        y: images in [0, 1] to compare them with.
        window: side of a window, pixels.

    Returns:
        One number for each pair of images.
    """

    def local(v: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        return F.avg_pool2d(v, window, stride=1)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    a, b = 0.01**2, 0.03**2
    alike = (
        (2 * mean_x * mean_y + a)
        * (2 * covariance + b)
        / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    )
    return alike.mean((1, 2, 3))


def laplacian(
    x: Float[Tensor, "B C H W"], y: Float[Tensor, "B C H W"], levels: int = 3
) -> Float[Tensor, ""]:
    """Mean L1 distance of the Laplacian pyramids of two images.

    Each level of a pyramid is what the next coarser one lacks. A pyramid is linear, so that of the
    difference is taken.

    Args:
        x: images whose sides are multiples of 2 ** levels.
        y: images to compare them with.
        levels: how many times the images are halved.

    Returns:
        The sum over the levels of the mean distance.
    """
    rest, total = x - y, torch.zeros((), dtype=x.dtype, device=x.device)
    for _ in range(levels):
        coarse = F.avg_pool2d(rest, 2)
        total = total + (rest - F.interpolate(coarse, scale_factor=2, mode="nearest")).abs().mean()
        rest = coarse
    return total


def sharp(x: Float[Tensor, "B C H W"], y: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """The loss of the priors of photographs: L1 + Laplacian pyramid + (1 - SSIM) / 4.

    The weights make the terms about equally large at the start; they were not searched.

    Args:
        x: images in [-1, 1].
        y: images in [-1, 1] to compare them with.
    """
    return (x - y).abs().mean() + laplacian(x, y) + (1 - ssim((x + 1) / 2, (y + 1) / 2).mean()) / 4


LOSSES: dict[str, Loss] = {"mse": F.mse_loss, "sharp": sharp}

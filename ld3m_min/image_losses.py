"""How alike two images are, without any network: losses that keep an autoencoder sharp, and the measure SSIM.

The public autoencoders are trained with LPIPS and a discriminator, that is, with weights from elsewhere and with an
adversary that has to be tuned. These terms need neither: an L1 distance does not average as a squared one does, a
Laplacian pyramid weighs edges at every scale, and SSIM compares local contrast.
"""
from __future__ import annotations

import torch.nn.functional as F


def ssim(x, y, window=7):
    """Structural similarity of images (B, C, H, W) in [0, 1]: (B,), 1 where they are equal (Wang et al., 2004).

    Uniform windows of `window` x `window` pixels, no padding; the constants are those of the original, for a range of 1.
    """
    def local(v):
        return F.avg_pool2d(v, window, stride=1)

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    a, b = 0.01**2, 0.03**2
    alike = (2 * mean_x * mean_y + a) * (2 * covariance + b) / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    return alike.mean((1, 2, 3))


def laplacian(x, y, levels=3):
    """Mean L1 distance of the Laplacian pyramids of two images, a scalar: each level is what the next coarser lacks.

    A pyramid is linear, so that of the difference is taken. Sides must be multiples of 2 ** levels.
    """
    rest, total = x - y, 0.0
    for _ in range(levels):
        coarse = F.avg_pool2d(rest, 2)
        total = total + (rest - F.interpolate(coarse, scale_factor=2, mode="nearest")).abs().mean()
        rest = coarse
    return total


def sharp(x, y):
    """The loss of the priors of photographs: L1 + Laplacian pyramid + (1 - SSIM) / 4, images in [-1, 1]; a scalar.

    The weights make the terms about equally large at the start; they were not searched.
    """
    return (x - y).abs().mean() + laplacian(x, y) + (1 - ssim((x + 1) / 2, (y + 1) / 2).mean()) / 4


LOSSES = {"mse": F.mse_loss, "sharp": sharp}

"""What an autoencoder is trained on: its own loss, then its decoder's by what a classifier sees.

A distance of pixels leaves a decoder that averages: textures go, by which classifiers tell one
thing from another. The public autoencoders mend that with LPIPS and a discriminator, the first of
which needs weights from elsewhere. Here the features are those of a small ConvNet that is trained
on the same training images. The encoder stays as it is meanwhile, and so do the latents and a
denoiser that was trained on them. The paper trains no prior (section 4.1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Generator, Tensor, nn

from ld3m_min.io.seeds import seeded
from ld3m_min.networks import Network
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.fit import Loss
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.losses import LOSSES
from ld3m_min.prior.noising import laid, normal
from ld3m_min.prior.real_images import RealImages


def autoencoder_loss(
    prior: LatentDiffusionPrior, images: UInt8[Tensor, "N 3 H W"], config: PriorConfig
) -> Loss:
    """Reconstruction and Kullback-Leibler term of a batch, by the number of the step.

    Args:
        prior: whose autoencoder is trained.
        images: to draw from, on its device.
        config: of the training.
    """
    vae, distance, device = prior.autoencoder, LOSSES[config.loss], images.device

    def loss(step: int) -> Tensor:
        g = seeded(config.seed, "autoencoder batch", step)
        x = images[torch.randint(len(images), (config.vae_batch,), generator=g).to(device)]
        x = laid(_augmented(x, config, g).float() / 255)
        posterior = vae.encode(2 * x - 1).latent_dist
        z = posterior.mean + posterior.std * normal(posterior.mean.shape, g, device)
        y = vae.decode(z).sample
        term: Tensor = config.kl_weight * posterior.kl().float().mean()
        return distance(y.float(), 2 * x - 1) + term

    return loss


def decoder_loss(
    prior: LatentDiffusionPrior,
    data: RealImages,
    images: UInt8[Tensor, "N 3 H W"],
    seen_by: Network,
    config: PriorConfig,
) -> Loss:
    """Distance of pixels and of features between a batch and its reconstruction, by the step.

    Args:
        prior: whose decoder is trained.
        data: that normalises for the classifier.
        images: to draw from, on the prior's device.
        seen_by: a trained ConvNet, which stays as it is.
        config: of the training.
    """
    distance, device = LOSSES[config.loss], images.device
    seen_by.requires_grad_(False).eval()

    def loss(step: int) -> Tensor:
        g = seeded(config.seed, "decoder batch", step)
        x = images[torch.randint(len(images), (config.vae_batch,), generator=g).to(device)]
        x = laid(_augmented(x, config, g).float() / 255)
        with torch.no_grad():
            z = prior.unscaled(prior.encode(x))
        y = prior.autoencoder.decode(z).sample.float()
        pairs = zip(*(_features(seen_by, data, v) for v in (x, (y + 1) / 2)), strict=True)
        apart = [(a - b).square().sum(1).mean() for a, b in pairs]
        return distance(y, 2 * x - 1) + torch.stack(apart).sum()

    return loss


def decoder_parts(prior: LatentDiffusionPrior) -> dict[str, nn.Module]:
    """The networks between the latents and the images, by name.

    Args:
        prior: whose autoencoder they belong to.
    """
    vae = prior.autoencoder
    return {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}


def _features(network: Network, data: RealImages, x: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
    """What a ConvNet has before each pooling, brought to length 1 over the channels.

    LPIPS compares features so (Zhang et al., 2018), with weights of its own besides.
    """
    found, x = [], data.normalise(x)
    layers = network.features
    assert isinstance(layers, nn.Sequential), "it is a ConvNet"
    for layer in layers:
        if isinstance(layer, nn.AvgPool2d):
            found.append(F.normalize(x.float(), dim=1))
        x = layer(x)
    return found


def _augmented(x: Tensor, config: PriorConfig, generator: Generator) -> Tensor:
    """A batch (B, 3, H, W), cropped at one random place and half of it mirrored, if asked for."""
    if config.crop:
        places = config.size - config.crop + 1
        row, column = torch.randint(places, (2,), generator=generator).tolist()
        x = x[..., row : row + config.crop, column : column + config.crop]
    if config.flip:
        flipped = (torch.rand(len(x), generator=generator) < 0.5).view(-1, 1, 1, 1)
        x = torch.where(flipped.to(x.device), x.flip(3), x)
    return x

"""Features by which a selection compares images: a prior's latents, or a network's embedding.

Raw pixels are what :func:`~ld3m_min.coresets.select` takes by itself. A network that was trained on
more than the data, such as all of ImageNet, has seen more than the other systems; none is here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from ld3m_min.config import DistilConfig, MTTConfig, NetworkConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.experts.train import train_expert
from ld3m_min.io.modes import ordinary_modes
from ld3m_min.networks import build_network
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior

AT_ONCE = 128  # images that pass a network together
CELLS = 4  # along a side, that latents are averaged in


@dataclass(frozen=True)
class Features:
    """A row for each training image.

    Attributes:
        rows: in the order of the training split.
        about: what made them, for recipes.
    """

    rows: Float[Tensor, "N D"]
    about: str


@ordinary_modes()
@torch.no_grad()
def latent_features(data: DataSplits, prior: LatentDiffusionPrior) -> Features:
    """Latents of the prior's encoder, averaged in 4 x 4 cells.

    Distances of whole latents are those of the layout of a picture rather than of what it shows; in
    a third party's comparison, averaged ones gave better anchors for a guided sampler.

    Args:
        data: its training images are encoded.
        prior: whose encoder it is, on its device.

    Raises:
        InputError: the images do not fit the encoder.
    """
    parts = []
    for index in torch.arange(len(data.train)).split(AT_ONCE):
        z = prior.encode(data.train.take(index).to(prior.device))
        cell = max(1, z.shape[-1] // CELLS)
        parts.append(F.avg_pool2d(z, cell, ceil_mode=True).flatten(1).cpu())
    about = (
        f"latents of the prior {prior.networks_digest[:12]}, averaged in {CELLS} x {CELLS} cells"
    )
    return Features(torch.cat(parts), about)


@ordinary_modes()
def network_features(
    data: DataSplits,
    *,
    epochs: int = 10,
    width: int = 32,
    lr: float = 0.02,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Features:
    """Embeddings before the classifier of a ConvNet that was trained on the real training images.

    The training is that of an expert of MTT (section 2.1): SGD with augmentation, batches of 64.

    Args:
        data: its training images are learned from, and embedded.
        epochs: of the training.
        width: channels of a block.
        lr: learning rate.
        seed: of the network and its training.
        device: where it is trained.

    Raises:
        InputError: a value out of range.
        NotFinite: the training diverged.
    """
    mtt = MTTConfig(
        train_epochs=epochs, expert_epochs=epochs, max_start_epoch=0, expert_lr=lr, expert_batch=64
    )
    network = NetworkConfig(width=width)
    config = DistilConfig(size=data.size, space="pixel", seed=seed, network=network, mtt=mtt)
    weights = train_expert(config, data, 0, device=device)[-1]
    trained = build_network("ConvNet", classes=len(data.classes), size=data.size, width=width)
    vector_to_parameters(weights, trained.parameters())
    trained = trained.to(device).eval()
    parts = []
    with torch.no_grad():
        for index in torch.arange(len(data.train)).split(AT_ONCE):
            x = data.normalise(data.train.take(index).to(device))
            parts.append(trained.embed(x).cpu())
    about = f"embeddings of a ConvNet of width {width}, {epochs} epochs at {lr:g}, seed {seed}"
    return Features(torch.cat(parts), about)

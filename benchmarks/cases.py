"""What is measured.

The shipped prior on the CPU; a U-Net and a decoder of the released prior's size on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ld3m_min.config import DistilConfig
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.presets import PRIOR_PRESETS, prior_preset
from ld3m_min.prior.schedule import ldm_scheduler
from ld3m_min.sampler import SamplerConfig


@dataclass(frozen=True)
class Case:
    """One configuration of the generator. `device` is the kind that it is meant for."""

    name: str
    prior: str
    device: str
    config: DistilConfig

    @property
    def command(self):
        """The command that makes this case's record."""
        return f"python -m benchmarks --case {self.name} --device {self.device}"


def _cin256(size, ipc, steps):
    config = preset("paper", algorithm="DC", size=size, ipc=ipc, sampler=SamplerConfig(steps=steps))
    return Case(f"cin256-{size}px-ipc{ipc}-T{steps}", "cin256", "cuda", config)


CASES = {
    c.name: c
    for c in (
        Case("digits-ipc1-T10", "digits", "cpu", preset("cpu", algorithm="DC")),
        Case("digits-ipc10-T10", "digits", "cpu", preset("cpu", algorithm="DC", ipc=10)),
        Case(
            "digits-ipc1-T20",
            "digits",
            "cpu",
            preset("cpu", algorithm="DC", sampler=SamplerConfig(steps=20)),
        ),
        Case("photos-ipc1-T10", "imagenette-64", "cpu", preset("photos", algorithm="DC")),
        *(
            _cin256(size, ipc, steps)
            for size in (128, 256)
            for ipc in (1, 10)
            for steps in (10, 20)
        ),
    )
}


def load(case, device):
    """The prior of a case on `device`.

    The shipped one; or random weights, which take the same time, in the architecture of the
    prior at 64 px or of the released one.
    """
    if case.prior == "digits":
        return LatentDiffusionPrior.from_pretrained("digits", device=device)
    if case.prior in PRIOR_PRESETS:
        return build_prior(prior_preset(case.prior), tuple("abcdefghij")).to(device=device)
    return cin256(device)


def cin256(device, classes=10):
    """The architecture of the released ImageNet prior, 401 M + 55 M parameters, random weights.

    For time and memory, weights do not matter. ("attention_head_dim" is, in this class of
    diffusers, the number of heads.)
    """
    from diffusers import UNet2DConditionModel, VQModel

    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=3,
            out_channels=3,
            block_out_channels=(192, 384, 576, 960),
            layers_per_block=2,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
            up_block_types=(*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
            cross_attention_dim=512,
            attention_head_dim=1,
        )
        vae = VQModel(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(128, 256, 512),
            layers_per_block=2,
            latent_channels=3,
            num_vq_embeddings=8192,
            vq_embed_dim=3,
            scaling_factor=1.0,
        )
        embedding = torch.nn.Embedding(classes + 1, 512)
    return LatentDiffusionPrior(
        vae, unet, ldm_scheduler(), embedding, classes=tuple(map(str, range(classes)))
    )


def smaller(config, steps):
    """`config` with another T."""
    return replace(config, sampler=replace(config.sampler, steps=steps))

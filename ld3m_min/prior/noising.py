"""Batches of noised latents, on which a noise predictor learns (section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


@dataclass(frozen=True)
class NoisedBatch:
    """Latents at random times of the forward process.

    Attributes:
        clean: the latents.
        labels: their classes.
        given: the classes that the predictor is told; some of them are the null class.
        t: the training step of each.
        gamma: gamma_t of each, the paper's name for alpha_bar.
        noise: that was added.
        z: the noised latents.
    """

    clean: Float[Tensor, "B c h w"]
    labels: Int[Tensor, " B"]
    given: Int[Tensor, " B"]
    t: Int[Tensor, " B"]
    gamma: Float[Tensor, "B 1 1 1"]
    noise: Float[Tensor, "B c h w"]
    z: Float[Tensor, "B c h w"]

    def clean_latents(self, predicted: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """The clean latents that a prediction of the noise implies: the forward process, solved.

        Args:
            predicted: noise.
        """
        return (self.z - (1 - self.gamma).sqrt() * predicted) / self.gamma.sqrt()


def noised_batch(
    prior: LatentDiffusionPrior,
    latents: Float[Tensor, "N c h w"],
    labels: Int[Tensor, " N"],
    n: int,
    generator: Generator,
    *,
    label_dropout: float,
) -> NoisedBatch:
    """A batch of latents, drawn with replacement, at times that are all as likely.

    Args:
        prior: has the schedule and the classes.
        latents: to draw from.
        labels: of the latents.
        n: how many.
        generator: of all that is drawn, on the CPU.
        label_dropout: how often the class is replaced by the null class.
    """
    device = latents.device
    index = torch.randint(len(latents), (n,), generator=generator)
    t = torch.randint(prior.train_steps, (n,), generator=generator)
    noise = normal((n, *latents.shape[1:]), generator, device)
    drop = (torch.rand(n, generator=generator) < label_dropout).to(device)
    clean, label = latents[index.to(device)], labels[index.to(device)]
    given = label.masked_fill(drop, prior.class_count)  # the row after the classes
    gamma = prior.alpha_bar.float().to(device)[t.to(device)].view(-1, 1, 1, 1)
    z = gamma.sqrt() * clean + (1 - gamma).sqrt() * noise  # the forward process of section 2.2
    return NoisedBatch(clean, label, given, t.to(device), gamma, noise, z)


def laid(x: Any) -> Any:
    """Channels last, which convolutions in bfloat16 are fast in on a GPU.

    Elsewhere nothing: any change alters the order of sums.

    Args:
        x: a tensor or a network.
    """
    on_gpu = (x.device if isinstance(x, Tensor) else next(x.parameters()).device).type == "cuda"
    return x.to(memory_format=torch.channels_last) if on_gpu else x


def normal(shape: Sequence[int], generator: Generator, device: torch.device) -> Tensor:
    """Normal numbers; on a GPU drawn there, which saves 10 ms a step: not a CPU's numbers.

    Args:
        shape: of the tensor.
        generator: on the CPU.
        device: of the tensor.
    """
    if device.type != "cuda":
        return torch.randn(shape, generator=generator)
    there = Generator(device).manual_seed(generator.initial_seed())
    return torch.randn(shape, generator=there, device=device)

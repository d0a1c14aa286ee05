"""What the public LD3M code does in an iteration, re-created from a description of it.

For comparison alone. It generates without gradients in chunks of 10 images, takes dL/dS, then
generates each chunk again with gradients: each noise prediction under a (re-entrant) checkpoint,
its transformer blocks under a checkpoint of their own, in which the blocks' weights receive
gradients that nobody uses. All is float32. Its matching goes class by class, and the real side of
DC keeps its graph. The forward noise is the same in both passes here, so that the gradients can be
compared; there it is not.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from torch.utils.checkpoint import checkpoint

from ld3m_min.distillers import (
    DC,
    DM,
    MTT,
    distribution_matching_loss,
    gradient_matching_distance,
)
from ld3m_min.sampler import denoise

CHUNK = 10


def as_public(prior):
    """A copy of the prior that recomputes its transformer blocks, as there.

    The blocks' weights are differentiated too, as there.
    """
    denoiser = copy.deepcopy(prior.denoiser)
    twin = prior._like(denoiser=denoiser)
    for block in denoiser.modules():
        if isinstance(block, BasicTransformerBlock):
            block.requires_grad_(True)
            block.forward = _under_checkpoint(block.forward)
    return twin


def _under_checkpoint(forward):
    def recomputed(hidden_states, encoder_hidden_states=None, **options):
        if not torch.is_grad_enabled():
            return forward(hidden_states, encoder_hidden_states=encoder_hidden_states, **options)
        return checkpoint(
            lambda x, c: forward(x, encoder_hidden_states=c, **options),
            hidden_states,
            encoder_hidden_states,
            use_reentrant=True,
        )

    return recomputed


def backward_through(prior, Z, c, noise, config, gradient_at):
    """One iteration's generation and its gradients, which are put into Z.grad and c.grad.

    Args:
        prior: made by :func:`as_public`.
        Z: latent codes, (B, c, h, w), a leaf.
        c: conditioning, (B, L, D), a leaf.
        noise: the forward process's noise, shaped as Z.
        config: of the sampler.
        gradient_at: images -> dL/dS.

    Returns:
        The images, (B, 3, H, W).
    """

    def generated(Z, c, noise, apply):
        return prior.decode(denoise(prior, Z, c, noise, config, apply=apply))

    chunks = list(zip(Z.split(CHUNK), c.split(CHUNK), noise.split(CHUNK), strict=True))
    with torch.no_grad():
        images = torch.cat([generated(*parts, lambda k, f, *x: f(*x)) for parts in chunks])
    Z.grad, c.grad = torch.zeros_like(Z), torch.zeros_like(c)
    for i, (parts, g) in enumerate(zip(chunks, gradient_at(images).split(CHUNK), strict=True)):
        z_part, c_part = (x.detach().clone().requires_grad_() for x in parts[:2])
        again = generated(
            z_part, c_part, parts[2], lambda k, f, *x: checkpoint(f, *x, use_reentrant=True)
        )
        again.backward(g)
        Z.grad[i * CHUNK : (i + 1) * CHUNK] = z_part.grad
        c.grad[i * CHUNK : (i + 1) * CHUNK] = c_part.grad
    for p in prior.denoiser.parameters():
        p.grad = None
    return images


class DCByClass(DC):
    """Gradient matching with every class drawn, augmented and passed by itself."""

    graph_of_real = False

    def step(self, images, labels, iteration):
        """The loss; its gradient is added to that of the images."""
        network = self.network(iteration)
        params = list(network.parameters())
        total = torch.zeros((), device=images.device)
        for label in labels.unique().tolist():
            real, synthetic = self.pair(images[labels == label], label, iteration)
            grads = []
            for x, graph in ((real, self.graph_of_real), (synthetic, True)):
                y = torch.full((len(x),), label, device=x.device)
                loss = F.cross_entropy(network(x), y)
                grads.append(torch.autograd.grad(loss, params, create_graph=graph))
            loss = gradient_matching_distance(
                grads[1], [g.detach() for g in grads[0]], self.config.dc.metric
            )
            loss.backward(inputs=[images])
            total += loss.detach()
        return total


class PublicDC(DCByClass):
    """The same, with a graph on the real side that nothing needs."""

    graph_of_real = True


class DMByClass(DM):
    """Distribution matching with every class drawn, augmented and passed by itself, as there."""

    def step(self, images, labels, iteration):
        """The loss; its gradient is added to that of the images."""
        network = self.network(iteration).requires_grad_(False)
        total = torch.zeros((), device=images.device)
        for label in labels.unique().tolist():
            real, synthetic = self.pair(images[labels == label], label, iteration)
            loss = distribution_matching_loss(network, real, synthetic)
            loss.backward()
            total += loss.detach()
        return total


# MTT: with gradient="approximate", the same two sweeps as there
PUBLIC = {"DC": PublicDC, "DM": DMByClass, "MTT": MTT}

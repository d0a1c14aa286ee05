"""Which few weights of a denoiser are fine-tuned (section 5; as Minimax takes them from DiffFit).

Biases, normalisations and the class embedding are trained, and one factor for each channel that an
attention takes in or gives out. A factor is folded into its matrix afterwards, so that the networks
are those of before, with other weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

NORMALISATIONS = (nn.LayerNorm, nn.GroupNorm)


class RowFactors(nn.Module):
    """A factor for each row of a matrix, that is, for each channel that it gives. Starts at 1.

    Args:
        like: the matrix.
    """

    def __init__(self, like: Float[Tensor, "rows columns"]) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones_like(like[:, :1]))

    def forward(self, matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """The matrix with its factors."""
        return matrix * self.factor


@contextmanager
def with_factors(denoiser: nn.Module) -> Iterator[None]:
    """While inside, an attention's matrices have factors; afterwards they are folded in.

    In front are queries, keys and values, behind is the output. A cross-attention's queries and
    keys are left out: with one token, as a class is, they play no part.

    Args:
        denoiser: changed in place.
    """
    matrices = list(_attention_matrices(denoiser))
    for matrix in matrices:
        factors = RowFactors(matrix.weight)
        parametrize.register_parametrization(matrix, "weight", factors)
    try:
        yield
    finally:
        for matrix in matrices:
            parametrize.remove_parametrizations(matrix, "weight", leave_parametrized=True)


def _attention_matrices(denoiser: nn.Module) -> Iterator[nn.Linear]:
    """The linear maps in front of each attention and behind it."""
    from diffusers.models.attention_processor import Attention

    for module in denoiser.modules():
        if isinstance(module, Attention):
            crossed = [] if module.is_cross_attention else [module.to_q, module.to_k]
            yield from (*crossed, module.to_v, module.to_out[0])


def chosen(modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the parameters that are trained, "network.parameter".

    Args:
        modules: the networks by name, the denoiser's attentions with their factors.
    """
    names = set()
    for network, module in modules.items():
        for place, part in module.named_modules():
            whole = isinstance(part, (*NORMALISATIONS, RowFactors, nn.Embedding))
            own = dict(part.named_parameters(recurse=False))
            found = [k for k in own if whole or k == "bias"]
            names |= {".".join(filter(None, (network, place, k))) for k in found}
    return names

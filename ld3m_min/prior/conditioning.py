"""How a denoiser takes the conditioning c: section 2.2, f_theta of equation (4).

A U-Net with cross-attention attends to c. A network with class labels embeds them itself; it is
made to take the embedding in their place, so that c can be learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.prior.kinds import Denoiser


@dataclass(frozen=True)
class ConditionInput:
    """Where a denoiser takes c.

    Attributes:
        keyword: the argument's name.
        width: D, the width of one token.
    """

    keyword: str
    width: int


def condition_width(denoiser: Denoiser) -> int | None:
    """D, the width of one token of the conditioning; None where the network takes none."""
    if embedders := label_embedders(denoiser):
        return _table(embedders[0]).embedding_dim
    width: int | None = denoiser.config.get("cross_attention_dim")
    return width


def take_condition(denoiser: Denoiser) -> ConditionInput | None:
    """Make a network take c (B, L, D), and say where; None where it takes none.

    A network with class labels takes their embedding as well: token i for block i, or the only
    token for all. Labels still work.

    Args:
        denoiser: changed in place if it has class labels.
    """
    width, embedders = condition_width(denoiser), label_embedders(denoiser)
    if width is None:
        return None
    if type(denoiser).__name__ == "UNet2DConditionModel":
        return ConditionInput("encoder_hidden_states", width)
    for i, embedder in enumerate(embedders):
        # replaced on the instance: the class, and so every other network, stays as it is
        embedder.forward = partial(_token, embedder.forward, i)
    return ConditionInput("class_labels", width)


def _token(
    embed_labels: Callable[[Tensor], Tensor],
    index: int,
    c: Float[Tensor, "B L D"] | Int[Tensor, " B"],
) -> Float[Tensor, "B D"]:
    """What block `index` takes of c; labels are embedded as ever."""
    return c[:, index if c.shape[1] > 1 else 0] if c.is_floating_point() else embed_labels(c)


def label_embedders(denoiser: Any) -> list[nn.Module]:
    """The modules of a network that turn labels into embeddings, in the order of its blocks.

    Args:
        denoiser: any network; one without such modules gives none.

    Raises:
        InputError: it embeds something else than labels.
    """
    if type(denoiser).__name__ == "DiTTransformer2DModel":
        return [block.norm1.emb.class_embedder for block in denoiser.transformer_blocks]
    embedder = getattr(denoiser, "class_embedding", None)
    if embedder is not None and not isinstance(embedder, nn.Embedding):
        kind = getattr(getattr(denoiser, "config", None), "class_embed_type", None)
        raise InputError(f"class embedding of type {kind!r} is not supported, only labels are")
    return [embedder] if embedder is not None else []


def label_table(denoiser: object) -> Float[Tensor, "K LD"] | None:
    """The class embeddings inside a network, a row for each class; None where it has none.

    Args:
        denoiser: any network.

    Returns:
        One token a row, L = 1, or one token per block where the blocks' embeddings differ.
    """
    tables = [_table(embedder).weight for embedder in label_embedders(denoiser)]
    if not tables:
        return None
    same = all(torch.equal(t, tables[0]) for t in tables)
    return tables[0] if same else torch.stack(tables, 1).flatten(1)


def _table(embedder: nn.Module) -> nn.Embedding:
    """The embedding that a module of :func:`label_embedders` looks labels up in."""
    found = embedder if isinstance(embedder, nn.Embedding) else embedder.embedding_table
    assert isinstance(found, nn.Embedding)
    return found


def skip_single_token_attention(denoiser: Denoiser) -> None:
    """Give a U-Net's cross-attentions a `SingleTokenAttention`; self-attention keeps its own.

    Args:
        denoiser: changed in place.
    """
    from diffusers.models.attention_processor import Attention

    from ld3m_min.prior.single_token import SingleTokenAttention

    if type(denoiser).__name__ == "UNet2DConditionModel":
        for name, module in denoiser.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                module.set_processor(SingleTokenAttention())

"""How a denoiser takes the conditioning c: section 2.2, f_theta of equation (4).

A U-Net with cross-attention attends to c. A network with class labels embeds them itself; it is
made to take the embedding in their place, so that c can be learned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
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
    if isinstance(denoiser, UNet2DConditionModel):
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


def label_embedders(denoiser: object) -> list[nn.Module]:
    """The modules of a network that turn labels into embeddings, in the order of its blocks.

    Args:
        denoiser: any network; one without such modules gives none.

    Raises:
        InputError: it embeds something else than labels.
    """
    if isinstance(denoiser, DiTTransformer2DModel):
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


class SingleTokenAttention(AttnProcessor2_0):  # type: ignore[misc]  # diffusers ships no types
    """Cross-attention to a single token, without the attention.

    A softmax over one score is 1, whatever the query. So the output is the token's value, the same
    at every position, and the queries receive no gradient: exact, in value and gradient. A class
    embedding is one token, so this is half of the attention of the public prior (section 4.1).
    Where the queries' weights are being trained, or where there are more tokens, it is the
    ordinary attention.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, " ..."],
        encoder_hidden_states: Float[Tensor, "B L D"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> Float[Tensor, " ..."]:
        """The output of the attention, as diffusers' own processor gives it.

        Args:
            attn: the attention that this processor belongs to.
            hidden_states: what asks, (B, positions, width) or (B, width, h, w).
            encoder_hidden_states: the tokens c; None in self-attention.
            attention_mask: as diffusers'.
            temb: embedding of the time step.
            *args: as diffusers'.
            **kwargs: as diffusers'.
        """
        one = encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1
        plain = not (
            attn.to_q.weight.requires_grad
            or attn.residual_connection
            or attn.norm_cross
            or attn.spatial_norm
        )
        if not (one and plain and attention_mask is None and hidden_states.dim() == 3):
            ordinary: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs
            )
            return ordinary
        value: Tensor = attn.to_out[0](attn.to_v(encoder_hidden_states))
        value = value / attn.rescale_output_factor
        return value.expand(-1, hidden_states.shape[1], -1)


def skip_single_token_attention(denoiser: Denoiser) -> None:
    """Give every cross-attention of a U-Net the processor above; self-attention keeps its own.

    Args:
        denoiser: changed in place.
    """
    if isinstance(denoiser, UNet2DConditionModel):
        for name, module in denoiser.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                module.set_processor(SingleTokenAttention())

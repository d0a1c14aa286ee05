"""Cross-attention to one token, as a class embedding is (section 4.1).

Imported late, since it imports diffusers.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor


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

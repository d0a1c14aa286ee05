"""The vision transformer of section 4.1."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.networks.base import Network, Spec, scaled
from ld3m_min.networks.dropout import Dropout


class _Attention(nn.Module):
    """Self-attention with heads of `head` channels."""

    def __init__(self, dim: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = Dropout()

    def forward(self, x: Float[Tensor, "B tokens dim"]) -> Float[Tensor, "B tokens dim"]:
        """Each token's mixture of all tokens."""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        # written out: the fused kernels cannot be differentiated twice, which DC and MTT need
        attention = (q @ k.transpose(-1, -2) / self.head**0.5).softmax(-1)
        mixed: Tensor = self.dropout(self.out((attention @ v).transpose(1, 2).flatten(2)))
        return mixed


class ViT(Network):
    """Ten transformer layers on 16x16 patches and a class token, without layer norm.

    Dropout is 0.1 in training.

    Example:
        >>> from ld3m_min.networks import build_network
        >>> vit = build_network("ViT", size=32, width=32)
        >>> vit.dropout_shape(2)  # two images of four patches and a class token
        (2, 5, 128)
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        dim = scaled(512, spec.width)
        self.pos_embedding = nn.Parameter(torch.empty(1, (spec.size // 16) ** 2 + 1, dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.patch_embedding = nn.Linear(spec.channels * 16 * 16, dim)
        self.dropout = Dropout()
        self.layers = nn.ModuleList()
        for _ in range(10):
            mlp = nn.Sequential(
                nn.Linear(dim, dim), nn.GELU(), Dropout(), nn.Linear(dim, dim), Dropout()
            )
            self.layers += [_Attention(dim, math.gcd(dim, 64)), mlp]
        self.classifier = nn.Linear(dim, spec.classes)

    def initialise_own(self, generator: torch.Generator) -> None:
        """Position embedding and class token, normal."""
        self.pos_embedding.normal_(generator=generator)
        self.cls_token.normal_(generator=generator)

    def dropout_shape(self, n: int) -> tuple[int, ...]:
        """What each of its dropouts sees of n images: (n, tokens, dim)."""
        return (n, *self.pos_embedding.shape[1:])

    def features(self, x: Float[Tensor, "B channels H W"]) -> Float[Tensor, "B dim"]:
        """The class token after the last layer."""
        patches = torch.unflatten(x, 3, (-1, 16))
        patches = torch.unflatten(patches, 2, (-1, 16))  # B, C, row, 16, column, 16
        patches = patches.permute(0, 2, 4, 3, 5, 1)  # B, row, column, 16, 16, C
        tokens = self.patch_embedding(patches.flatten(3).flatten(1, 2))
        x = self.dropout(
            torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embedding
        )
        for layer in self.layers:
            x = x + layer(x)
        return x[:, 0]

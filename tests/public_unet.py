"""The unconditional U-Net of the public latent-diffusion code, a tiny one, written out from its
definition.

Two levels of 32 and 64 channels, one residual block each, self-attention on the second; float64, on
a plain state dict.
"""

import math

import torch
import torch.nn.functional as F

HEAD_WIDTH = 16
CONFIG = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": HEAD_WIDTH,
}
RESIDUAL = {
    "input_blocks.1.0": (32, 32),
    "input_blocks.3.0": (32, 64),
    "middle_block.0": (64, 64),
    "middle_block.2": (64, 64),
    "output_blocks.0.0": (128, 64),
    "output_blocks.1.0": (96, 64),
    "output_blocks.2.0": (96, 32),
    "output_blocks.3.0": (64, 32),
}
ATTENTION = ("input_blocks.3.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1")


def random_state(generator):
    """Key -> tensor: weights of unit gain, norms near one."""
    shapes = {
        "time_embed.0": (128, 32),
        "time_embed.2": (128, 128),
        "input_blocks.0.0": (32, 3, 3, 3),
        "input_blocks.2.0.op": (32, 32, 3, 3),
        "output_blocks.1.2.conv": (64, 64, 3, 3),
        "out.0": (32,),
        "out.2": (3, 32, 3, 3),
    }
    for k, (a, b) in RESIDUAL.items():
        shapes |= {
            f"{k}.in_layers.0": (a,),
            f"{k}.in_layers.2": (b, a, 3, 3),
            f"{k}.emb_layers.1": (b, 128),
            f"{k}.out_layers.0": (b,),
            f"{k}.out_layers.3": (b, b, 3, 3),
        }
        if a != b:
            shapes[f"{k}.skip_connection"] = (b, a, 1, 1)
    for k in ATTENTION:
        shapes |= {f"{k}.norm": (64,), f"{k}.qkv": (192, 64, 1), f"{k}.proj_out": (64, 64, 1)}
    state = {}
    for k, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        state[f"{k}.weight"] = (
            1 + 0.1 * noise if len(shape) == 1 else noise / math.sqrt(noise[0].numel())
        )
        state[f"{k}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def forward(state, x, t):
    """The noise prediction for x (B, 3, h, w) at time steps t (B,)."""
    w = {k: v.double() for k, v in state.items()}

    def norm(k, h):
        return F.group_norm(h, 32, w[f"{k}.weight"], w[f"{k}.bias"], eps=1e-5)

    def conv(k, h, **options):
        return F.conv2d(
            h, w[f"{k}.weight"], w[f"{k}.bias"], padding=w[f"{k}.weight"].shape[-1] // 2, **options
        )

    def linear(k, h):
        return F.linear(h, w[f"{k}.weight"], w[f"{k}.bias"])

    def residual(k, h):
        y = conv(f"{k}.in_layers.2", F.silu(norm(f"{k}.in_layers.0", h)))
        y = y + linear(f"{k}.emb_layers.1", F.silu(time))[:, :, None, None]
        y = conv(f"{k}.out_layers.3", F.silu(norm(f"{k}.out_layers.0", y)))
        return y + (conv(f"{k}.skip_connection", h) if f"{k}.skip_connection.weight" in w else h)

    def attention(k, h):
        b, channels = h.shape[:2]
        flat = norm(f"{k}.norm", h).reshape(b, channels, -1).mT
        # (b, 3 channels, positions)
        qkv = F.linear(flat, w[f"{k}.qkv.weight"][..., 0], w[f"{k}.qkv.bias"]).mT
        out = []
        # cut into heads first, then into query, key and value
        for head in qkv.split(3 * HEAD_WIDTH, dim=1):
            q, key, v = head.split(HEAD_WIDTH, dim=1)
            weights = torch.softmax(q.mT @ key / math.sqrt(HEAD_WIDTH), dim=-1)
            out.append(v @ weights.mT)
        y = F.linear(
            torch.cat(out, 1).mT, w[f"{k}.proj_out.weight"][..., 0], w[f"{k}.proj_out.bias"]
        ).mT
        return h + y.reshape(h.shape)

    frequencies = torch.exp(-math.log(10000) * torch.arange(16).double() / 16)
    angles = t.double()[:, None] * frequencies
    time = linear(
        "time_embed.2", F.silu(linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1)))
    )
    h0 = conv("input_blocks.0.0", x.double())
    h1 = residual("input_blocks.1.0", h0)
    h2 = conv("input_blocks.2.0.op", h1, stride=2)
    h3 = attention("input_blocks.3.1", residual("input_blocks.3.0", h2))
    h = residual("middle_block.2", attention("middle_block.1", residual("middle_block.0", h3)))
    h = attention("output_blocks.0.1", residual("output_blocks.0.0", torch.cat([h, h3], 1)))
    h = attention("output_blocks.1.1", residual("output_blocks.1.0", torch.cat([h, h2], 1)))
    h = conv("output_blocks.1.2.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
    h = residual("output_blocks.2.0", torch.cat([h, h1], 1))
    h = residual("output_blocks.3.0", torch.cat([h, h0], 1))
    return conv("out.2", F.silu(norm("out.0", h)))

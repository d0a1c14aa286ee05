"""The digits' denoiser and decoder as one file that a page can load, and what a test compares."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorers import output
from ld3m_min.io.files import write_bytes
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, denoise

FILE = "live.weights.js"


def needed(name: str) -> bool:
    """Whether the page computes with a weight.

    The conditioning is one token: attention to it weighs it with 1, whatever is asked
    (`SingleTokenAttention`), so its queries, keys and their normalisation have no part.
    """
    return not any(part in name for part in ("attn2.to_q", "attn2.to_k", ".norm2.")) or (
        "resnets" in name
    )


def tensors(prior: LatentDiffusionPrior) -> dict[str, Tensor]:
    """The weights by name: `u.` of the U-Net, `d.` of the decoder, and the table of classes."""
    assert prior.denoiser is not None and prior.class_embedding is not None
    unet = {f"u.{k}": v for k, v in prior.denoiser.state_dict().items() if needed(k)}
    parts = ("decoder.", "post_quant_conv.")
    decoder = {
        f"d.{k.removeprefix('decoder.')}": v
        for k, v in prior.autoencoder.state_dict().items()
        if k.startswith(parts)
    }
    return {**unet, **decoder, "classes": prior.class_embedding.weight.detach()}


def packed(values: dict[str, Tensor]) -> str:
    """Float16, low bytes and high bytes apart (the high ones repeat), deflated, as base64."""
    flat = torch.cat([v.detach().flatten() for v in values.values()]).half().numpy()
    halves = np.frombuffer(flat.astype("<f2").tobytes(), np.uint8).reshape(-1, 2)
    return base64.b64encode(zlib.compress(halves.T.tobytes(), 9)).decode()


def unpacked(text: str) -> Tensor:
    """The numbers in :func:`packed`, in one row."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1)
    return torch.from_numpy(np.ascontiguousarray(raw.T).view("<f2").reshape(-1).astype(np.float32))


def live() -> None:
    """The weights; what the page must know before they are loaded; and a film as a still."""
    at = output.digits_start()
    values = tensors(at.prior) | {"Z": at.Z}
    text = packed(values)
    script = f'"use strict";\nglobalThis.LD3M.data["live.weights"] = "{text}";\n'
    write_bytes(output.FOLDER / FILE, script.encode())
    about: dict[str, Any] = {
        "file": FILE,
        "bytes": len(script),
        "tensors": [[k, list(v.shape)] for k, v in values.items()],
        "scale": at.prior.scale,
        "alpha_bar": [float(f"{a:.9g}") for a in at.prior.alpha_bar.tolist()],
    }
    output.write_data("live", about)
    frames: list[Tensor] = []
    config = SamplerConfig(steps=10, residual=NO_RESIDUAL)
    with torch.no_grad():
        denoise(at.prior, at.Z, at.c, at.noise, config, callback=lambda s: frames.append(s))
        rows = [
            (f"{n}", torch.cat([at.prior.decode(getattr(f, k)[7:8]) for f in frames]))
            for n, k in (("state", "z"), ("clean guess", "predicted_x0"))
        ]
    output.write_still("live", output.strips(rows))
    print(f"{len(script) / 1e6:.2f} MB", flush=True)

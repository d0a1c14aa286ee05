"""Soft labels: what a network that has seen all real images says of a small set's images.

Many rivals of today (D4M, SRe2L) are published with such labels. They carry knowledge of the
teacher that is in no image, so the book compares systems with hard labels, and measures apart what
soft ones add.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ld3m_min.config import EvalConfig
from ld3m_min.data.splits import DataSplits
from ld3m_min.errors import InputError
from ld3m_min.evaluate.protocol import train_network
from ld3m_min.io.seeds import seeded
from ld3m_min.networks import build_network


def teacher_labels(
    images: Float[Tensor, "B 3 H W"],
    data: DataSplits,
    config: EvalConfig,
    *,
    architecture: str = "ConvNet",
    temperature: float = 1.0,
    seed: int = 0,
) -> Float[Tensor, "B K"]:
    """Train a teacher on the whole training split; its probabilities of each class for each image.

    Args:
        images: in [0, 1].
        data: its training split is trained on, on its device.
        config: the protocol of the teacher's training.
        architecture: of the teacher; the ConvNet is that which distils.
        temperature: that its logits are divided by; larger ones level the probabilities.
        seed: of the teacher and its training.

    Returns:
        Probabilities, which sum to one for each image.

    Raises:
        InputError: unknown architecture; images of another size than the data; a temperature that
            isn't positive; the teacher's training diverged.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"a teacher's temperature must be above 0, not {temperature:g}")
    if images.shape[-1] != data.size:
        raise InputError(
            f"the images have {images.shape[-1]} px and the teacher's {data.size}; give images of "
            "that size, or load the data at theirs"
        )
    device = data.train.images.device
    teacher = build_network(
        architecture,
        classes=len(data.classes),
        size=data.size,
        width=config.width,
        generator=seeded(seed, "teacher", architecture),
    ).to(device)
    rate = config.lr.get(architecture, config.lr["default"])
    real = data.normalise(data.train.float())
    draws = seeded(seed, "teacher's training", architecture)
    train_network(teacher, real, data.train.labels, config, rate, draws).eval()
    with torch.no_grad():
        logits = teacher(data.normalise(images.to(device)))
    if not logits.isfinite().all():
        raise InputError(
            f"the training of the teacher {architecture} diverged; lower its rate in the "
            "protocol's lr"
        )
    probabilities: Tensor = (logits / temperature).softmax(1)
    return probabilities

"""The classifier that says whether images of a prior show what they should (section 4.1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.digests import digest
from ld3m_min.io.disk import StrPath
from ld3m_min.io.progress import bar
from ld3m_min.io.seeds import seeded
from ld3m_min.io.stop import stoppable
from ld3m_min.networks import Network, build_network
from ld3m_min.prior.kept import keep_tensors, kept_tensors
from ld3m_min.prior.real_images import ImageSet, RealImages
from ld3m_min.training import batch_sizes

# what the classifier is shown later doesn't change it
_SHOWN_LATER = ("held_out", "per_class", "steps", "guidance_scale")


@dataclass(frozen=True)
class ClassifierConfig:
    """The classifier that looks at a prior of photographs, and what it is shown.

    It is trained by Adam, with a linear warm-up and a linear fall of the rate, on crops and mirror
    images.

    Attributes:
        network: a name that `build_network` knows.
        width: as `build_network`'s.
        size: side of its images, pixels; larger ones are brought to it by averaging.
        epochs: of its training.
        batch: images a step.
        lr: the highest rate.
        images: of the training split, a class as many as another; None for all.
        held_out: validation images that are reconstructed, a class as many as another.
        per_class: samples of each class.
        steps: T, with which they are drawn.
        guidance_scale: with which they are drawn.
    """

    network: str = "ResNet18"
    width: int = 64
    size: int = 128
    epochs: int = 20
    batch: int = 64
    lr: float = 1e-3
    images: int | None = None
    held_out: int = 500
    per_class: int = 50
    steps: int = 50
    guidance_scale: float = 3.0


def some_of_each(dataset: ImageSet, n: int | None, seed: int = 0) -> Int[Tensor, " n"]:
    """Positions of about n images, every class as often as another.

    Args:
        dataset: one split.
        n: how many, rounded up to a multiple of the classes; None for all.
        seed: of the choice.
    """
    if n is None:
        return torch.arange(len(dataset))
    classes = range(len(dataset.classes))
    each = -(-n // len(classes))
    return torch.cat(
        [dataset.draw_positions(k, each, seeded(seed, "some of each", k)).cpu() for k in classes]
    )


def train_classifier(
    data: RealImages,
    config: ClassifierConfig,
    *,
    folder: StrPath | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Network:
    """Train a classifier on real training images alone.

    Args:
        data: its training split alone is used.
        config: the network and its training.
        folder: where the classifier is kept. Its file belongs to one configuration and is not made
            twice, unless it is damaged. None keeps nothing.
        device: where it is trained, and where it is returned.
        progress: show a bar.

    Raises:
        Interrupted: it was asked to stop. The classifier, a matter of minutes, is then trained
            anew.
    """
    network = build_network(
        config.network,
        width=config.width,
        size=config.size,
        classes=len(data.classes),
        generator=seeded(0, "classifier"),
    ).to(device)
    of = _identity(data, config)
    file = None
    if folder is not None:
        file = Path(folder) / f"classifier-{config.network}-{of[:16]}.safetensors"
    if file is not None and (found := kept_tensors(file, of)) is not None:
        network.load_state_dict(found)
        return network.eval()
    _fit(network, data, config, torch.device(device), progress)
    if file is not None:
        keep_tensors(file, network.state_dict(), of)
    return network.eval()


def _identity(data: RealImages, config: ClassifierConfig) -> str:
    """A digest of all that a classifier's weights depend on."""
    trained_as = [
        {k: v for k, v in asdict(config).items() if k not in _SHOWN_LATER},
        data.train.digest,
        list(data.mean),
        list(data.std),
    ]
    return digest(trained_as)


def _fit(
    network: Network,
    data: RealImages,
    config: ClassifierConfig,
    device: torch.device,
    progress: bool,
) -> None:
    """Train a classifier in place; the arguments are :func:`train_classifier`'s."""
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    chosen = some_of_each(data.train, config.images)
    adam = torch.optim.Adam(network.parameters(), lr=config.lr)
    sizes = batch_sizes(len(chosen), config.batch)
    steps, step = config.epochs * len(sizes), 0
    network.train()
    with stoppable() as stop:
        for epoch in bar(range(config.epochs), desc="classifier", show=progress):
            g = seeded(0, "judge epoch", epoch)  # the name decides which numbers are drawn
            for index in chosen[torch.randperm(len(chosen), generator=g)].split(sizes):
                rise, fall = 10 * (step + 1) / steps, (steps - step) / (0.9 * steps)
                for group in adam.param_groups:  # up over a tenth of the steps, then down to zero
                    group["lr"] = config.lr * min(rise, 1.0, fall)
                x = _augmented(images[index.to(device)].float() / 255, config, g)
                with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                    loss = F.cross_entropy(network(data.normalise(x)), labels[index.to(device)])
                adam.zero_grad()
                loss.backward()
                adam.step()
                step += 1
                if stop.reason:
                    stop.leave("what was trained before is saved, the classifier is not")


def _augmented(
    x: Float[Tensor, "B 3 H W"], config: ClassifierConfig, generator: torch.Generator
) -> Float[Tensor, "B 3 size size"]:
    """A batch at the classifier's size, moved by up to a sixteenth, and half of it mirrored."""
    x = averaged_down(x, config.size)
    row, column = torch.randint(config.size // 8 + 1, (2,), generator=generator).tolist()
    x = F.pad(x, (config.size // 16,) * 4, mode="replicate")
    x = x[..., row : row + config.size, column : column + config.size]
    mirrored = (torch.rand(len(x), generator=generator) < 0.5).view(-1, 1, 1, 1).to(x.device)
    return torch.where(mirrored, x.flip(3), x)


def averaged_down(x: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C h w"]:
    """Images as a classifier sees them: larger ones averaged down to its size.

    Args:
        x: images whose side is a multiple of the size.
        size: pixels.
    """
    return F.avg_pool2d(x, x.shape[-1] // size) if x.shape[-1] > size else x

"""How good samples of a prior are, whatever drew them (section 4.1).

Their classes are recognised by a classifier that was trained on real training images alone. How
much samples of a class differ, and how far they are from the training images, is measured in the
same classifier's features, relative to held-out real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ld3m_min.networks import Network
from ld3m_min.prior.classifier import averaged_down
from ld3m_min.prior.real_images import ImageSet, RealImages


@dataclass(frozen=True)
class SampleQuality:
    """What samples of a prior are like.

    Attributes:
        recognised: fraction that the classifier takes for their class.
        classifier_accuracy: of the same classifier on held-out real images.
        diversity: mean distance between samples of one class over that between real images of one
            class.
        novelty: mean distance of a sample to its nearest training image, over that of held-out
            images; a copy has 0.
    """

    recognised: float
    classifier_accuracy: float
    diversity: float
    novelty: float


@dataclass(frozen=True)
class Answers:
    """What a classifier says of images, on the CPU.

    Attributes:
        features: its embedding of each image.
        labels: the class that it takes each image for.
    """

    features: Float[Tensor, "B D"]
    labels: Int[Tensor, " B"]


def measure_by_pixels(
    samples: Float[Tensor, "B 3 H W"], labels: Int[Tensor, " B"], data: RealImages
) -> SampleQuality:
    """Quality of samples by a support vector machine on pixels, and in pixels: for digits.

    It shares nothing with a prior. Held-out are the test images.

    Args:
        samples: in [0, 1].
        labels: the classes that were asked for.
        data: real images of these classes.
    """
    from sklearn.svm import SVC

    def rows(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return F.avg_pool2d(x.float().cpu(), max(1, data.size // 16)).flatten(1)  # 16 x 16 at most

    real, test, made = rows(data.train.float()), rows(data.test.float()), rows(samples)
    classifier = SVC(C=10.0).fit(real.numpy(), data.train.labels.cpu().numpy())

    def answers(x: Float[Tensor, "B D"]) -> Answers:
        return Answers(x, torch.from_numpy(classifier.predict(x.numpy())))

    truth = data.test.labels.cpu()
    return _compared(answers(made), labels.cpu(), answers(test), truth, real)


def measure_by_network(
    samples: Float[Tensor, "B 3 H W"],
    labels: Int[Tensor, " B"],
    data: RealImages,
    classifier: Network,
    size: int,
    held: Int[Tensor, " n"],
) -> SampleQuality:
    """Quality of samples by a network's answers, and in its features: for photographs.

    Args:
        samples: in [0, 1].
        labels: the classes that were asked for.
        data: real images of these classes.
        classifier: trained on the training images.
        size: of the classifier's images, pixels.
        held: positions of the validation images that they are compared with.
    """
    device = next(classifier.parameters()).device
    real = data.validation.take(held).cpu()
    trained = features_of(classifier, data.train, data, size, device)
    made, found = (ask(classifier, x.cpu(), data, size, device) for x in (samples, real))
    truth = data.validation.labels.cpu()[held]
    return _compared(made, labels.cpu(), found, truth, trained)


def _compared(
    made: Answers,
    asked: Int[Tensor, " B"],
    held: Answers,
    truth: Int[Tensor, " n"],
    trained: Float[Tensor, "N D"],
) -> SampleQuality:
    """The figures of samples, of held-out images and their classes, and of training images."""
    nearest = [torch.cdist(x.features, trained).amin(1).mean() for x in (made, held)]
    diversity = within(made.features, asked) / within(held.features, truth)
    return SampleQuality(
        recognised=share(made.labels == asked),
        classifier_accuracy=share(held.labels == truth),
        diversity=round(diversity.item(), 3),
        novelty=round((nearest[0] / nearest[1]).item(), 3),
    )


@torch.no_grad()
def ask(
    classifier: Network,
    images: Float[Tensor, "B 3 H W"],
    data: RealImages,
    size: int,
    device: torch.device,
) -> Answers:
    """What a classifier says of images.

    Args:
        classifier: on the device.
        images: in [0, 1].
        data: whose normalisation the classifier was trained with.
        size: of the classifier's images, pixels.
        device: where the classifier is.
    """
    pieces = [data.normalise(averaged_down(piece.to(device), size)) for piece in images.split(50)]
    return Answers(
        torch.cat([classifier.embed(p).cpu() for p in pieces]),
        torch.cat([classifier(p).argmax(1).cpu() for p in pieces]),
    )


def features_of(
    classifier: Network, images: ImageSet, data: RealImages, size: int, device: torch.device
) -> Float[Tensor, "N D"]:
    """A classifier's features of all images of a split; arguments are those of :func:`ask`."""
    parts = torch.arange(len(images)).split(500)
    return torch.cat(
        [ask(classifier, images.take(p).cpu(), data, size, device).features for p in parts]
    )


def share(hits: Bool[Tensor, " B"]) -> float:
    """The fraction that is true."""
    return round(hits.float().mean().item(), 4)


def within(features: Float[Tensor, "B D"], labels: Int[Tensor, " B"]) -> Float[Tensor, ""]:
    """Mean distance of two images of one class."""
    same = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool)
    return torch.cdist(features, features)[same].mean()

"""How good a prior is, on images it has not seen: the figures of its model card.

Digits are judged by a support vector machine on pixels (:func:`measure_prior`). Photographs need a network: `train_judge`
trains one on the same real training images, and :func:`measure_images` asks it about reconstructions and samples.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from .digests import digest
from .image_losses import ssim
from .networks import build_network
from .progress import bar
from .sampler import NO_RESIDUAL, SamplerConfig, generate
from .signals import stoppable
from .storage import seeded, to_bytes, write_bytes


@dataclass(frozen=True)
class JudgeConfig:
    """The classifier that judges a prior of photographs, and what it is shown.

    Attributes:
        network, width, size: as `build_network`'s; images are brought to `size` pixels by averaging.
        epochs, batch, lr: of its training, Adam with a linear warm-up and a linear fall, crops and mirror images.
        images: of the training split, a class as many as another; None for all.
        held_out: validation images that are reconstructed, a class as many as another.
        per_class, steps, guidance_scale: samples of each class, and how they are drawn.
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


@dataclass(frozen=True)
class PriorQuality:
    """What the model card prints.

    Attributes:
        psnr: mean peak signal-to-noise ratio of decode(encode(x)) on held-out images, dB.
        recognised: fraction of class-conditional samples that the classifier takes for their class.
        classifier_accuracy: of the same classifier on held-out real images.
        diversity: mean distance between samples of one class over that between real images of one class.
        novelty: mean distance of a sample to its nearest training image, over that of held-out images.
    """

    psnr: float
    recognised: float
    classifier_accuracy: float
    diversity: float
    novelty: float
    samples: int
    held_out: int


@torch.no_grad()
def measure_prior(prior, data, *, per_class=50, steps=50, guidance_scale=3.0, seed=0):
    """Quality of a prior on the data's held-out test split; see :class:`PriorQuality`.

    The judge is a support vector machine on pixels (scikit-learn), trained on real training images: it shares nothing
    with the prior.
    """
    from sklearn.svm import SVC

    device = prior.device
    held = data.test.float().to(device)
    again = torch.cat([prior.decode(prior.encode(b)) for b in held.split(256)])
    psnr = (-10 * torch.log10((again - held).square().mean((1, 2, 3)))).mean().item()
    labels = torch.arange(len(data.classes)).repeat_interleave(per_class)
    samples = sample_prior(prior, labels, data.size, steps=steps, guidance_scale=guidance_scale, seed=seed).cpu()

    def flat(x):
        return F.avg_pool2d(x.float(), max(1, data.size // 16)).flatten(1)

    real, test = flat(data.train.float().cpu()), flat(held.cpu())
    judge = SVC(C=10.0).fit(real.numpy(), data.train.labels.cpu().numpy())
    made = flat(samples)
    same = data.test.labels.cpu()[:, None] == data.test.labels.cpu()[None]
    off = ~torch.eye(len(test), dtype=torch.bool)
    between = torch.cdist(made, made)
    own = (labels[:, None] == labels[None]) & ~torch.eye(len(made), dtype=torch.bool)
    return PriorQuality(
        psnr=round(psnr, 2),
        recognised=round(float((judge.predict(made.numpy()) == labels.numpy()).mean()), 4),
        classifier_accuracy=round(float((judge.predict(test.numpy()) == data.test.labels.cpu().numpy()).mean()), 4),
        diversity=round((between[own].mean() / torch.cdist(test, test)[same & off].mean()).item(), 3),
        novelty=round((torch.cdist(made, real).amin(1).mean() / torch.cdist(test, real).amin(1).mean()).item(), 3),
        samples=len(made),
        held_out=len(held),
    )


@dataclass(frozen=True)
class ImageQuality:
    """What the model card of a prior of photographs prints; all on held-out training images, never on the test split.

    Attributes:
        psnr, ssim: of decode(encode(x)) against x, dB and [0, 1].
        judge_accuracy: of the judge on the held-out real images; reconstructed_accuracy: on their reconstructions.
        agreement: how often the judge says of the reconstruction what it says of the image.
        feature_distance: mean distance of an image to its reconstruction in the judge's features, over that of two images.
        recognised: fraction of class-conditional samples that the judge takes for their class.
        diversity: mean distance between samples of a class in the judge's features, over that of real images of a class.
    """

    psnr: float
    ssim: float
    judge_accuracy: float
    reconstructed_accuracy: float
    agreement: float
    feature_distance: float
    recognised: float
    diversity: float
    samples: int
    held_out: int


def some_of_each(dataset, n, seed=0):
    """About n positions of an :class:`~ld3m_min.data.ImageDataset`, every class as often as another; all where n is None."""
    if n is None:
        return torch.arange(len(dataset))
    classes = range(len(dataset.classes))
    return torch.cat([dataset.draw_positions(k, -(-n // len(classes)), seeded(seed, "some of each", k)).cpu() for k in classes])


def train_judge(data, config, *, folder=None, device="cpu", progress=True):
    """The classifier of a :class:`JudgeConfig`, trained on real training images alone; kept in `folder` if given.

    Its file belongs to one configuration and is not made twice.

    Raises:
        Interrupted: it was asked to stop; the judge, a matter of minutes, is then trained anew.
    """
    network = build_network(config.network, width=config.width, size=config.size, classes=len(data.classes),
                            generator=seeded(0, "judge")).to(device)
    apart = ("held_out", "per_class", "steps", "guidance_scale")  # what it is shown later doesn't change it
    trained_as = [{k: v for k, v in asdict(config).items() if k not in apart}, data.train.digest, list(data.mean), list(data.std)]
    file = folder and Path(folder) / f"classifier-{config.network}-{digest(trained_as)[:16]}.safetensors"
    if file and file.exists():
        from safetensors.torch import load_file

        network.load_state_dict(load_file(file))
        return network.eval()
    images = data.train.images.to(device)
    chosen, labels = some_of_each(data.train, config.images), data.train.labels.to(device)
    adam = torch.optim.Adam(network.parameters(), lr=config.lr)
    steps, step = config.epochs * -(-len(chosen) // config.batch), 0
    on_gpu = torch.device(device).type == "cuda"
    network.train()
    with stoppable() as stop:
        for epoch in bar(range(config.epochs), desc="judge", show=progress):
            g = seeded(0, "judge epoch", epoch)
            for index in chosen[torch.randperm(len(chosen), generator=g)].split(config.batch):
                for group in adam.param_groups:  # up over a tenth of the steps, then down to zero
                    group["lr"] = config.lr * min(10 * (step + 1) / steps, 1.0, (steps - step) / (0.9 * steps))
                x = _judged(images[index.to(device)].float() / 255, config)
                row, column = torch.randint(config.size // 8 + 1, (2,), generator=g).tolist()
                x = F.pad(x, (config.size // 16,) * 4, mode="replicate")
                x = x[..., row : row + config.size, column : column + config.size]
                x = torch.where((torch.rand(len(x), generator=g) < 0.5).view(-1, 1, 1, 1).to(device), x.flip(3), x)
                with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
                    loss = F.cross_entropy(network(data.normalise(x)), labels[index.to(device)])
                adam.zero_grad()
                loss.backward()
                adam.step()
                step += 1
                if stop.reason:
                    stop.leave("the prior is trained and saved, its judge is not")
    if file:
        write_bytes(file, to_bytes(network.state_dict()))
    return network.eval()


def _judged(x, config):
    """Images as the judge sees them, averaged down to its size."""
    return F.avg_pool2d(x, x.shape[-1] // config.size) if x.shape[-1] > config.size else x


@torch.no_grad()
def measure_images(prior, data, judge, config, *, seed=0):
    """Quality of a prior of photographs on validation images; returns (:class:`ImageQuality`, the samples on the CPU).

    Args:
        judge: the network of :func:`train_judge`; config: its :class:`JudgeConfig`.
    """
    device = prior.device

    def ask(x):  # the judge's features and its answer, on the CPU
        pieces = [data.normalise(_judged(b.to(device), config)) for b in x.split(50)]
        return torch.cat([judge.embed(p).cpu() for p in pieces]), torch.cat([judge(p).argmax(1).cpu() for p in pieces])

    def between(features, labels):  # mean distance within a class
        same = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool)
        return torch.cdist(features, features)[same].mean()

    index = some_of_each(data.validation, min(config.held_out, len(data.validation)))
    held, truth = data.validation.take(index).cpu(), data.validation.labels.cpu()[index]
    again = torch.cat([prior.decode(prior.encode(b.to(device))).cpu() for b in held.split(25)])
    labels = torch.arange(len(data.classes)).repeat_interleave(config.per_class)
    samples = sample_prior(prior, labels, data.size, steps=config.steps, guidance_scale=config.guidance_scale, seed=seed,
                           batch=20 if device.type == "cpu" else 250).cpu()
    (f, real), (f_again, rebuilt), (f_made, made) = ask(held), ask(again), ask(samples)
    any_two = torch.cdist(f, f)[~torch.eye(len(f), dtype=torch.bool)].mean()
    psnr = -10 * torch.log10((again - held).square().mean((1, 2, 3)))
    return ImageQuality(
        psnr=round(psnr.mean().item(), 2),
        ssim=round(ssim(again, held).mean().item(), 4),
        judge_accuracy=round((real == truth).float().mean().item(), 4),
        reconstructed_accuracy=round((rebuilt == truth).float().mean().item(), 4),
        agreement=round((rebuilt == real).float().mean().item(), 4),
        feature_distance=round(((f - f_again).norm(dim=1).mean() / any_two).item(), 4),
        recognised=round((made == labels).float().mean().item(), 4),
        diversity=round((between(f_made, labels) / between(f, truth)).item(), 3),
        samples=len(samples),
        held_out=len(held),
    ), samples


@torch.no_grad()
def sample_prior(prior, labels, size, *, steps=50, guidance_scale=3.0, seed=0, batch=250):
    """Ordinary class-conditional samples, from pure noise and without a residual: (B, 3, size, size) in [0, 1]."""
    side = size // prior.factor
    config = SamplerConfig(steps=steps, guidance_scale=guidance_scale, residual=NO_RESIDUAL)
    noise = torch.randn((len(labels), prior.latent_channels, side, side), generator=seeded(seed, "prior samples"))
    out = []
    for y, e in zip(labels.split(batch), noise.to(prior.device).split(batch), strict=True):
        out.append(generate(prior, torch.zeros_like(e), prior.class_conditioning(y), e, config))
    return torch.cat(out)

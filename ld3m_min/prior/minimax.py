"""Fine-tune a prior by Minimax's criteria (Gu et al., arXiv 2311.15529; section 5 of the paper).

A prior is trained a little further on the real images, by the noise loss and the two criteria of
:mod:`ld3m_min.prior.criteria`, so that its samples make a better training set. Nothing is
distilled. The paper sees Minimax as orthogonal to LD3M and proposes to join them. That can be read
in two ways, and both run: LD3M over the fine-tuned prior, which is only another name for the
configuration's prior; or LD3M first, whose learned codes are then the real memory of the
fine-tuning. The control is the same fine-tuning without the criteria.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.disk import StrPath
from ld3m_min.io.lock import locked
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.checks import class_conditional
from ld3m_min.prior.class_map import NO_MAP, ClassMap
from ld3m_min.prior.class_matching import match_classes
from ld3m_min.prior.criteria import Criteria, LabelledLatents, Memory
from ld3m_min.prior.efficient import chosen, with_factors
from ld3m_min.prior.fine_tuning_config import FineTuneConfig
from ld3m_min.prior.fit import fit
from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior
from ld3m_min.prior.noising import NoisedBatch, noised_batch
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.train import encoded

_APART = ("name", "prior", "checkpoint_every", "checkpoint_seconds", "classifier", "about")
LOGGED = ("noise", "representativeness", "diversity", "cosine")
MEASURED = 20  # batches of a measurement, once the memories are full


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning gives.

    Attributes:
        prior: with the averaged weights; its autoencoder is that of before.
        before: what :func:`measure_criteria` says of the prior that it started from.
        after: and of this one.
        history: the noise loss and the criteria of each step, by the names of `LOGGED`; None where
            there was nothing to compare with.
        trained: how many numbers were trained.
        codes: digest of the latents that were remembered in place of real ones; None for real ones.
    """

    prior: LatentDiffusionPrior
    before: dict[str, float]
    after: dict[str, float]
    history: dict[str, list[float | None]]
    trained: int
    codes: str | None = None


class FineTuningLoss:
    """The noise loss of a batch and, weighted, its criteria; by the number of the step.

    The published loss also has a bound on the variance, which our priors do not predict.

    Args:
        prior: that is trained.
        latents: of all training images.
        labels: of the latents.
        config: of the fine-tuning.
        memory: what batches are compared with.
    """

    def __init__(
        self,
        prior: LatentDiffusionPrior,
        latents: Float[Tensor, "N c h w"],
        labels: Int[Tensor, " N"],
        config: FineTuneConfig,
        memory: Memory,
    ) -> None:
        self.prior, self.latents, self.labels = prior, latents, labels
        self.config, self.memory = config, memory
        self.log = torch.full((config.steps, len(LOGGED)), math.nan)
        self.before = torch.full((len(LOGGED),), math.nan)

    def __call__(self, step: int) -> Float[Tensor, ""]:
        """The loss of a step; the batch is then remembered."""
        c = self.config
        if step == 0:  # kept with a checkpoint, so that it is measured once
            self.before.copy_(measure_criteria(self.prior, self.latents, self.labels, c))
        drop = c.label_dropout if self.prior.has_null else 0.0
        g = seeded(c.seed, "fine-tuning batch", step)
        batch = noised_batch(self.prior, self.latents, self.labels, c.batch, g, label_dropout=drop)
        noise = _predicted(self.prior, batch)
        loss = (noise - batch.noise).square().mean()
        found = _criteria(self.memory, batch, noise)
        logged = (loss, found.representativeness, found.diversity, found.cosine)
        self.log[step] = torch.stack(logged).detach().cpu()
        if c.criteria:
            loss = loss + c.representativeness * found.representativeness
            loss = loss + c.diversity * found.diversity
        return loss

    def state(self) -> dict[str, Tensor]:
        """The memories and what was measured, by name."""
        return self.memory.state() | {"log": self.log, "before": self.before}

    def load(self, found: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        self.memory.load(found)
        for name, kept in (("log", self.log), ("before", self.before)):
            kept.copy_(found[name])

    def history(self) -> dict[str, list[float | None]]:
        """The log, by name."""
        columns = zip(LOGGED, self.log.T.tolist(), strict=True)
        return {k: [None if math.isnan(x) else round(x, 5) for x in v] for k, v in columns}


def fine_tune(
    prior: object,
    data: RealImages,
    config: FineTuneConfig,
    out: StrPath,
    *,
    codes: LabelledLatents | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    class_map: ClassMap = NO_MAP,
) -> FineTuned:
    """Fine-tune a prior, writing checkpoints below `out`; the prior that is given stays as it is.

    What is trained is said by :mod:`ld3m_min.prior.efficient`. Adam without decay, at a constant
    rate; gradients are clipped at a norm of 1, as in every training here. Asked to stop, it saves
    and leaves; called again it goes on as if it had never stopped, on the CPU bit for bit.

    Args:
        prior: class-conditional.
        data: its training split alone is used.
        config: of the fine-tuning.
        out: the folder of the checkpoints.
        codes: latents that LD3M learned, to be remembered in place of real ones
            (:func:`~ld3m_min.prior.criteria.learned_latents`); None for real ones.
        device: where it is trained.
        progress: show bars.
        class_map: what the user says of the data's classes in the prior.

    Returns:
        The fine-tuned prior, and what was measured.

    Raises:
        InputError: the prior has no encoder, no denoiser or no classes, or not those of the data;
            or codes that do not fit.
        NotFinite: a loss is not finite.
        Interrupted: it was asked to stop; everything done so far is in the checkpoint.
    """
    device, out = torch.device(device), Path(out)
    start = class_conditional(prior, "fine-tuning")
    identity = _identity(config, data, start, codes)
    if class_map:  # what said nothing is no part of it, as in the trainings of before
        identity |= {"class_map": class_map.record}
    tuned = _copied(start, data, class_map).to(device, torch.float32)
    size = tuned.latent_channels * (data.size // tuned.factor) ** 2
    memory = Memory(data.classes, config.memory, size, device, codes)
    latents, labels = _latents(tuned, data, config, progress)
    assert tuned.denoiser is not None and tuned.class_embedding is not None
    loss = FineTuningLoss(tuned, latents, labels, config, memory)
    every, seconds = config.checkpoint_every, config.checkpoint_seconds
    with locked(out), with_factors(tuned.denoiser):
        modules = {"unet": tuned.denoiser, "class_embedding": tuned.class_embedding}
        names = chosen(modules)
        sizes = [p.numel() for m, net in modules.items() for k, p in net.named_parameters()
                 if f"{m}.{k}" in names]  # fmt: skip
        fit(
            modules,
            loss,
            Checkpointer(out / "unet", identity, every=every, seconds=seconds),
            steps=config.steps,
            lr=config.lr,
            ema=config.ema,
            device=device,
            dtype=torch.float32,
            progress=progress,
            only=names,
            constant=True,
            carried=loss,
        )
    after = measure_criteria(tuned, latents, labels, config)
    remembered = None if codes is None else codes.digest
    return FineTuned(
        tuned, _named(loss.before), _named(after), loss.history(), sum(sizes), remembered
    )


def _named(measured: Float[Tensor, " terms"]) -> dict[str, float]:
    """What was measured, by the names of `LOGGED`."""
    return {k: round(x, 5) for k, x in zip(LOGGED, measured.tolist(), strict=True)}


@torch.no_grad()
def measure_criteria(
    prior: LatentDiffusionPrior,
    latents: Float[Tensor, "N c h w"],
    labels: Int[Tensor, " N"],
    config: FineTuneConfig,
) -> Float[Tensor, " terms"]:
    """The criteria of a prior that is not trained meanwhile, on batches that are always the same.

    The memories hold real latents and predictions of this prior; they are filled first.

    Args:
        prior: class-conditional.
        latents: of real images.
        labels: of the latents.
        config: says the batch, the memory and the seed.

    Returns:
        Means over the batches, in the order of `LOGGED`.
    """
    memory = Memory(prior.classes, config.memory, latents[0].numel(), latents.device)
    # half as many again as would do if every batch had as many of each class
    filling = math.ceil(1.5 * config.memory * len(prior.classes) / config.batch)
    rows = []
    for step in range(filling + MEASURED):
        g = seeded(config.seed, "criteria", step)
        batch = noised_batch(prior, latents, labels, config.batch, g, label_dropout=0.0)
        noise = _predicted(prior, batch)
        found = _criteria(memory, batch, noise)
        error = (noise - batch.noise).square().mean()
        rows.append(torch.stack((error, found.representativeness, found.diversity, found.cosine)))
    return torch.stack(rows[filling:]).mean(0)


def _predicted(prior: LatentDiffusionPrior, batch: NoisedBatch) -> Float[Tensor, "B c h w"]:
    """The noise that a prior predicts in a batch."""
    return prior.predict_noise(batch.z, batch.t, prior.class_conditioning(batch.given)).float()


def _criteria(memory: Memory, batch: NoisedBatch, noise: Float[Tensor, "B c h w"]) -> Criteria:
    """The criteria of the clean latents that a prediction implies; the batch is then remembered."""
    e = batch.clean_latents(noise).flatten(1)
    found = memory.criteria(e, batch.labels)
    memory.add(batch.clean.flatten(1), e, batch.labels)
    return found


def _copied(
    prior: LatentDiffusionPrior, data: RealImages, class_map: ClassMap
) -> LatentDiffusionPrior:
    """A prior for the data's classes, in their order, whose denoiser and classes are its own."""
    rows = match_classes(prior, data, class_map).rows
    if rows != tuple(range(prior.class_count)) or prior.classes != tuple(data.classes):
        prior = prior.for_classes(rows, data.classes)
    return LatentDiffusionPrior(
        copy.deepcopy(prior.autoencoder),
        copy.deepcopy(prior.denoiser),
        prior.scheduler,
        copy.deepcopy(prior.class_embedding),
        classes=prior.classes,
        null=prior.has_null,
    )


def _latents(
    prior: LatentDiffusionPrior, data: RealImages, config: FineTuneConfig, progress: bool
) -> tuple[Float[Tensor, "M c h w"], Int[Tensor, " M"]]:
    """Latents of all training images and their labels."""
    images = data.train.images.to(prior.device)
    with torch.no_grad():
        latents = encoded(prior, images, flip=config.flip, batch=64, progress=progress)
    return latents, data.train.labels.to(prior.device).repeat(1 + config.flip)


def _identity(
    config: FineTuneConfig,
    data: RealImages,
    prior: LatentDiffusionPrior,
    codes: LabelledLatents | None,
) -> dict[str, Any]:
    """What two fine-tunings must share for one to go on from the other's checkpoint."""
    values = {k: v for k, v in asdict(config).items() if k not in _APART}
    content = {"data": data.train.digest, "prior": prior.digest}
    return values | {"content": content, "codes": None if codes is None else codes.digest}

"""Train a style-based generator: as a GAN, or as the decoder of an autoencoder (section 2.3).

Only training images are seen. A generative adversarial network draws sharp digits in a quarter of
an hour. Photographs would take days of a CPU, so there the generator is the decoder of a
variational autoencoder, whose samples are blurred, and is called that. Either training writes
checkpoints and goes on from them, on the CPU bit for bit: every draw is counted.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ld3m_min.errors import NotFinite
from ld3m_min.io.checkpoints import Checkpoint, Checkpointer
from ld3m_min.io.lock import locked
from ld3m_min.io.progress import bar
from ld3m_min.io.seeds import seeded
from ld3m_min.prior.fit import Loss, Optimiser, fit
from ld3m_min.prior.losses import LOSSES
from ld3m_min.prior.real_images import RealImages
from ld3m_min.prior.style_config import StyleConfig
from ld3m_min.prior.style_critic import (
    Critic,
    Encoder,
    augmented,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from ld3m_min.prior.style_gan import StyleGenerator, build_style

_APART = (  # fields that change no weight
    "name", "checkpoint_every", "checkpoint_seconds", "classifier", "about",
)  # fmt: skip


def train_style(
    config: StyleConfig,
    data: RealImages,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> StyleGenerator:
    """Train a generator, writing checkpoints below `out`.

    Asked to stop (SIGTERM, Ctrl-C, a deadline), it saves and leaves; called again it goes on as if
    it had never stopped.

    Args:
        config: architecture and training.
        data: its training split alone is used.
        out: the folder of the checkpoints.
        device: where it is trained.
        progress: show a bar.

    Returns:
        The finished generator: averaged weights, float32, frozen.

    Raises:
        NotFinite: a loss or its gradient is not finite.
        Interrupted: it was asked to stop; everything done so far is in the checkpoint.
    """
    out, device = Path(out), torch.device(device)
    generator = build_style(config.architecture, data.classes, seed=config.seed).to(device)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    known = {k: v for k, v in asdict(config).items() if k not in _APART}
    known["content"] = data.train.digest
    every, seconds = config.checkpoint_every, config.checkpoint_seconds
    with locked(out):
        kept = Checkpointer(out / config.objective, known, every=every, seconds=seconds)
        if config.objective == "gan":
            _Game(generator, images, labels, config).play(kept, progress)
        else:
            _fit_decoder(generator, images, labels, config, kept, progress)
    return generator.requires_grad_(False).eval()


class _Game:
    """Generator against critic: what is trained, and the two steps of a round.

    Args:
        generator: to be trained.
        images: real ones.
        labels: of the images.
        config: of the training.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        images: UInt8[Tensor, "N 3 H W"],
        labels: Int[Tensor, " N"],
        config: StyleConfig,
    ) -> None:
        self.generator, self.images, self.labels = generator, images, labels
        self.config, self.device = config, images.device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(seeded(config.seed, "critic").get_state())
            self.critic = Critic(config.widths, generator.class_count).to(self.device)
        rates: dict[str, Any] = {"lr": config.lr, "ema": config.ema, "steps": config.steps}
        # the penalty comes once in so many steps, and a critic's step counts for as much more
        share = config.r1_every / (config.r1_every + 1)
        self.players = {
            "generator": Optimiser({"generator": generator}, betas=(0.0, 0.99), **rates),
            "critic": Optimiser(
                {"critic": self.critic},
                betas=(0.0, 0.99**share),
                **{**rates, "lr": config.lr * share},
            ),
        }

    def play(self, checkpoints: Checkpointer, progress: bool) -> None:
        """All rounds that are still to be played; the averaged weights are left in the generator.

        Args:
            checkpoints: of the training.
            progress: show a bar.
        """
        moments = [{f"{n}.{k}": v for k, v in p.moments().items()} for n, p in self.players.items()]
        found = checkpoints.load(like=self._state(), optional=moments[0] | moments[1])
        steps = self.config.steps
        start = 0 if found is None else self._load(found)
        shown = bar(range(start, steps), initial=start, total=steps, desc="gan", show=progress)
        with checkpoints.stoppable():
            for step in shown:
                losses = {"critic": self._critic_step(step), "generator": self._step(step)}
                due = checkpoints.due(step + 1, last=step + 1 == steps)
                if due or step % 20 == 0:
                    self._check(losses, step)
                    shown.set_postfix({k: f"{float(v):.3f}" for k, v in losses.items()})
                if due or checkpoints.asked:
                    for player in self.players.values():
                        player.check(step)
                    checkpoints.save(step + 1, self._state())
                checkpoints.leave_if_asked(f"{step + 1:,} of {steps:,} steps are saved")
        self.players["generator"].keep_averages()

    def _check(self, losses: dict[str, Tensor], step: int) -> None:
        """Refuse to go on, or to save, where a loss is not finite."""
        for name, loss in losses.items():
            if not torch.isfinite(loss):
                raise NotFinite(
                    f"loss of the {name} is {loss.item()} at step {step}; lower its learning rate, "
                    "or raise the gradient penalty"
                )

    def _drawn(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise and classes of a batch of images to be generated."""
        n, width = self.config.batch, self.generator.z_width
        noise = torch.randn((n, width), generator=generator).to(self.device)
        index = torch.randint(len(self.labels), (n,), generator=generator)
        return noise, self.labels[index.to(self.device)]

    def _seen(self, x: Float[Tensor, "B 3 H W"], g: torch.Generator) -> Float[Tensor, "B 3 H W"]:
        """Images in [-1, 1] as the critic sees them."""
        return 2 * augmented((x + 1) / 2, self.config.augment, g) - 1

    def _critic_step(self, step: int) -> Float[Tensor, ""]:
        """One step of the critic; its loss."""
        config, g = self.config, seeded(self.config.seed, "critic batch", step)
        index = torch.randint(len(self.images), (config.batch,), generator=g).to(self.device)
        real, real_labels = self.images[index].float() / 127.5 - 1, self.labels[index]
        noise, labels = self._drawn(g)
        with torch.no_grad():
            fake = self.generator.output(self.generator.map(noise, labels))
        real, fake = self._seen(real, g), self._seen(fake, g)
        loss = critic_loss(self.critic(real, real_labels), self.critic(fake, labels))
        shown = loss.detach()
        if step % config.r1_every == 0:
            penalty = gradient_penalty(self.critic, real, real_labels)
            loss = loss + config.r1 / 2 * config.r1_every * penalty
        self.players["critic"].step(loss, step)
        return shown

    def _step(self, step: int) -> Float[Tensor, ""]:
        """One step of the generator; its loss."""
        g = seeded(self.config.seed, "generator batch", step)
        noise, labels = self._drawn(g)
        self.critic.requires_grad_(False)
        fake = self.generator.output(self.generator.map(noise, labels))
        loss = generator_loss(self.critic(self._seen(fake, g), labels))
        self.players["generator"].step(loss, step)
        self.critic.requires_grad_(True)
        return loss.detach()

    def _state(self) -> dict[str, Tensor]:
        """All that the training goes on from, by name."""
        return {f"{n}.{k}": v for n, p in self.players.items() for k, v in p.state().items()}

    def _load(self, found: Checkpoint) -> int:
        """Take over a checkpoint; how many steps it was made after."""
        for name, player in self.players.items():
            own = {k.removeprefix(f"{name}."): v for k, v in found.tensors.items()}
            player.load(Checkpoint(found.step, own))
        return found.step


def _fit_decoder(
    generator: StyleGenerator,
    images: UInt8[Tensor, "N 3 H W"],
    labels: Int[Tensor, " N"],
    config: StyleConfig,
    checkpoints: Checkpointer,
    progress: bool,
) -> None:
    """Train a generator as the decoder of a variational autoencoder, which is told the class.

    Args:
        generator: to be trained.
        images: real ones.
        labels: of the images.
        config: of the training.
        checkpoints: of the training.
        progress: show a bar.
    """
    device = images.device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(seeded(config.seed, "encoder").get_state())
        encoder = Encoder(config.widths, generator.class_count, generator.z_width).to(device)
    fit(
        {"generator": generator, "encoder": encoder},
        _decoder_loss(generator, encoder, images, labels, config),
        checkpoints,
        steps=config.steps,
        lr=config.lr,
        ema=config.ema,
        device=device,
        dtype=torch.float32,
        progress=progress,
    )


def _decoder_loss(
    generator: StyleGenerator,
    encoder: Encoder,
    images: UInt8[Tensor, "N 3 H W"],
    labels: Int[Tensor, " N"],
    config: StyleConfig,
) -> Loss:
    """Reconstruction and Kullback-Leibler term of a batch, by the number of the step."""
    distance, device = LOSSES[config.loss], images.device

    def loss(step: int) -> Tensor:
        g = seeded(config.seed, "decoder batch", step)
        index = torch.randint(len(images), (config.batch,), generator=g).to(device)
        x, y = images[index].float() / 127.5 - 1, labels[index]
        if config.flip:
            mirrored = torch.rand(len(x), generator=g) < 0.5
            x = torch.where(mirrored.view(-1, 1, 1, 1).to(device), x.flip(3), x)
        posterior = encoder(x, y)
        noise = torch.randn(posterior.mean.shape, generator=g).to(device)
        made = generator.output(generator.map(posterior.sample(noise), y))
        term: Tensor = config.kl_weight * posterior.kl().mean()
        return distance(made, x) + term

    return loss

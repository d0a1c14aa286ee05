"""Training a style-based generator: losses by definition, augmentation, stop and resume, card."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ld3m_min.commands import train_prior as command
from ld3m_min.data import load_data
from ld3m_min.errors import InputError
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json
from ld3m_min.prior import StyleGenerator
from ld3m_min.prior.style_card import finish_style
from ld3m_min.prior.style_config import STYLE_PRESETS, style_preset
from ld3m_min.prior.style_critic import (
    Critic,
    Encoder,
    Posterior,
    augmented,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from ld3m_min.prior.style_gan import build_style
from ld3m_min.prior.style_train import _Game, train_style


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def critic(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Critic((6, 4), classes)


# losses


def test_losses_are_cross_entropies_of_real_and_generated():
    real, fake = torch.randn(5, generator=generator()), torch.randn(5, generator=generator(1))
    entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(5), torch.zeros(5)
    torch.testing.assert_close(critic_loss(real, fake), entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(generator_loss(fake), entropy(fake, ones))


def test_the_penalty_is_the_squared_norm_of_the_gradient():
    """A linear critic w x has the gradient w at each image."""

    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 8, 8, generator=generator()))

        def forward(self, x, labels):
            return (x * self.w).sum((1, 2, 3))

    net = Straight()
    found = gradient_penalty(net, torch.zeros(4, 3, 8, 8), None)
    torch.testing.assert_close(found, net.w.square().sum())
    (slope,) = torch.autograd.grad(found, net.w)
    torch.testing.assert_close(slope, 2 * net.w)  # so it can be lowered


def test_the_posterior_by_torchs_own():
    mean, log_variance = (torch.randn(4, 3, generator=generator(i)) for i in range(2))
    found = Posterior(mean, log_variance)
    theirs = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(0.0, 1.0)
    wanted = torch.distributions.kl_divergence(theirs, standard).sum(1)
    torch.testing.assert_close(found.kl(), wanted)
    noise = torch.randn(4, 3, generator=generator(2))
    torch.testing.assert_close(
        found.sample(noise), theirs.icdf(standard.cdf(noise)), rtol=1e-3, atol=1e-3
    )


def test_the_critic_sees_class_and_batch():
    net, x = critic(), torch.randn(4, 3, 8, 8, generator=generator())
    labels = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        out = net(x, labels)
        assert out.shape == (4,) and not torch.equal(out, net(x, labels.flip(0)))
        # one image of a batch of different ones, and of a batch of its copies
        assert not torch.allclose(out[:1], net(x[:1].expand(4, -1, -1, -1), labels[:1].expand(4)))
        alone = critic(classes=0)
        assert alone(x).shape == (4,) and alone.classes is None


def test_the_encoder_is_told_the_class():
    net, x = Encoder((6, 4), 3, 5), torch.randn(2, 3, 8, 8, generator=generator())
    found = net(x, torch.tensor([0, 1]))
    assert found.mean.shape == found.log_variance.shape == (2, 5)
    assert not torch.equal(found.mean[0], net(x, torch.tensor([1, 1])).mean[0])
    assert Encoder((6, 4), 0, 5)(x).mean.shape == (2, 5)


# augmentation


def test_augmentation_is_drawn_differentiable_and_may_do_nothing(digits):
    x = digits.train.float()[:16]
    assert torch.equal(augmented(x, 0.0, generator()), x)
    one, again, other = (augmented(x, 1.0, generator(s)) for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.shape == x.shape
    leaf = x.clone().requires_grad_()
    augmented(leaf, 1.0, generator()).sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_augmentation_moves_little_and_mirrors_nothing():
    """A bright spot right of the middle stays there, by at most what was said."""
    x = torch.zeros(400, 3, 32, 32)
    x[:, :, 15:17, 23:25] = 1.0
    y = augmented(x, 1.0, generator())
    bright = y - y.amin((1, 2, 3), keepdim=True)
    spot = bright.mean(1) * (bright.mean(1) > 0.5 * bright.mean(1).amax((1, 2), keepdim=True))
    seen = [s for s in spot if 0 < int((s > 0).sum()) < 20]  # where the hole left it alone
    assert len(seen) > 100
    columns = torch.stack([(s.sum(0) * torch.arange(32)).sum() / s.sum() for s in seen])
    rows = torch.stack([(s.sum(1) * torch.arange(32)).sum() / s.sum() for s in seen])
    # 8 columns right of the middle, times 1.1, and a shift of 4; 10 degrees move it 1.5 rows
    assert columns.min() > 15.5 + 2 and columns.max() < 15.5 + 14
    assert (rows - 15.5).abs().max() < 4 + 2.5


# training


@pytest.mark.parametrize("objective", ["gan", "vae"])
def test_stopped_and_resumed_is_never_stopped(digits, tmp_path, objective, monkeypatch):
    config = style_preset("style-smoke", objective=objective)
    whole = train_style(config, digits, tmp_path / "whole", progress=False)
    save, calls = Checkpointer.save, []

    def stops(self, step, tensors, notes=None, **options):
        save(self, step, tensors, notes, **options)
        calls.append(step)
        raise KeyError("killed")

    monkeypatch.setattr(Checkpointer, "save", stops)
    with pytest.raises(KeyError):
        train_style(config, digits, tmp_path / "parts", progress=False)
    monkeypatch.setattr(Checkpointer, "save", save)
    again = train_style(config, digits, tmp_path / "parts", progress=False)
    assert calls == [2] and again.digest == whole.digest
    ends = [Checkpointer(tmp_path / p / objective, None).load() for p in ("whole", "parts")]
    assert ends[0].step == 4 and ends[0].tensors.keys() == ends[1].tensors.keys()
    assert all(torch.equal(v, ends[1].tensors[k]) for k, v in ends[0].tensors.items())
    assert not any(p.requires_grad for p in again.parameters()) and not again.training
    # finished: it is only read
    assert train_style(config, digits, tmp_path / "parts", progress=False).digest == whole.digest
    with pytest.raises(InputError, match=r"lr: 0\.002 -> 0\.001"):
        train_style(replace(config, lr=1e-3), digits, tmp_path / "parts", progress=False)


def test_the_decoder_learns(tmp_path):
    """After some steps the mean of the images is nearer to that of the digits."""
    digits = load_data("digits", size=16)
    config = style_preset(
        "style-smoke", objective="vae", size=16, widths=(8, 8, 8), batch=8, lr=0.05
    )
    wanted, gaps = digits.train.float().mean(0), []
    for steps in (1, 40):
        one = replace(config, steps=steps, ema=0.5, checkpoint_every=1000)
        made = train_style(one, digits, tmp_path / str(steps), progress=False)
        z = torch.randn(100, 4, generator=generator())
        images = made.synthesize(made.map(z, torch.arange(100) % 10))
        gaps.append((images.mean(0) - wanted).square().mean())
    assert gaps[1] < 0.6 * gaps[0]


def test_each_player_gains_where_the_other_stands_still():
    digits = load_data("digits", size=16)
    config = style_preset("style-smoke", size=16, widths=(8, 8, 8), steps=10_000, lr=0.02)
    made = build_style(config.architecture, digits.classes)
    game = _Game(made, digits.train.images, digits.train.labels, config)
    fixed = [p.detach().clone() for p in made.parameters()]
    losses = [float(game._critic_step(101)) for _ in range(20)]  # of one and the same batch
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(fixed, made.parameters(), strict=True))
    fixed = [p.detach().clone() for p in game.critic.parameters()]
    losses = [float(game._step(101)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(fixed, game.critic.parameters(), strict=True))
    assert all(p.requires_grad for p in game.critic.parameters())


def test_a_loss_that_is_no_number_stops_it(digits, tmp_path, monkeypatch):
    from ld3m_min.prior import style_train

    monkeypatch.setattr(style_train, "generator_loss", lambda x: x.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 0"):
        train_style(style_preset("style-smoke"), digits, tmp_path, progress=False)


def test_measured_and_delivered(digits, tmp_path, monkeypatch):
    from ld3m_min.prior import style_quality

    monkeypatch.setattr(style_quality, "INVERSION_STEPS", 2)
    config = style_preset("style-smoke")
    made = train_style(config, digits, tmp_path, progress=False)
    quality = finish_style(config, digits, made, tmp_path, records=tmp_path / "records")
    assert StyleGenerator.from_pretrained(tmp_path / "model").digest == made.digest
    record = read_json(tmp_path / "records" / "prior-style-smoke-seed0.json")
    assert record["quality"]["recognised"] == quality.recognised and record["kind"] == "style-gan"
    assert quality.samples == 500 and quality.inverted == 20
    assert list(quality.inversion) == ["W+", "F1", "F3", "F5"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "train-prior style-smoke" in card and "adversarial" in card
    assert (tmp_path / "records" / "prior-style-smoke-seed0.png").exists()


def test_the_command_trains_either_kind(digits, tmp_path, capsys, monkeypatch):
    from ld3m_min.prior import style_quality

    monkeypatch.setattr(style_quality, "INVERSION_STEPS", 1)
    words = ["--out", str(tmp_path / "out"), "--records", str(tmp_path)]
    command.COMMAND.parse(["--preset", "style-smoke", "--steps", "2", *words])()
    assert "recognised: " in capsys.readouterr().out
    assert (tmp_path / "out" / "model" / "model_index.json").exists()
    call = command.STYLE.resolved(["style-digits", "--widths", "8", "8", "8", "8"])
    assert call.config == style_preset("style-digits", widths=(8, 8, 8, 8))
    with pytest.raises(SystemExit):
        command.COMMAND.parse(["style-digits", "--help"])
    assert "--kl-weight" in capsys.readouterr().out
    assert command.COMMAND.parse(["digits", "--dry-run"])() is None
    assert "vae_steps" in capsys.readouterr().out


def test_presets_and_what_does_not_fit():
    assert all(name == config.name and config.about for name, config in STYLE_PRESETS.items())
    with pytest.raises(InputError, match=r"4 widths.* make images of 32 px, not size = 64"):
        style_preset("style-digits", size=64)
    with pytest.raises(InputError, match="unknown style preset 'x'; choose style-digits"):
        style_preset("x")
    with pytest.raises(InputError, match="batch must be at least 2"):
        style_preset("style-digits", batch=1)
    assert {c.kind for c in STYLE_PRESETS.values()} == {"style-gan", "style-vae"}

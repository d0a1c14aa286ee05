"""The training loop of priors: nothing that isn't finite is stepped, saved or returned."""

import pytest
import torch
from torch import nn

from ld3m_min.errors import InputError, NotFinite
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.prior import style_train
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.fit import fit
from ld3m_min.prior.style_config import style_preset
from ld3m_min.prior.style_critic import generator_loss


def trained(folder, bad=None, steps=4):
    """A weight after some steps; at one of them the gradient of a finite loss is NaN."""
    net = nn.Linear(1, 1)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)

    def loss(step):
        y = net(torch.ones(1, 1)).square().mean()
        return y + (net(torch.ones(1, 1)) * 0).abs().sum().sqrt() if step == bad else y

    kept = Checkpointer(folder / "net", {"work": 1}, every=1)
    cpu, full = torch.device("cpu"), torch.float32
    fit(
        {"net": net}, loss, kept, steps=steps, lr=0.1, ema=0.9, device=cpu, dtype=full,
        progress=False,
    )  # fmt: skip
    return net.weight.item()


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_a_gradient_that_is_not_finite_spoils_nothing(tmp_path, bad):
    """At the first, a later and the last step; without it the same command goes on as ever."""
    with pytest.raises(NotFinite, match=f"gradient is not finite at step {bad}"):
        trained(tmp_path / "parts", bad)
    found = Checkpointer(tmp_path / "parts" / "net", None).load()
    assert (found.step if found else 0) == bad
    assert trained(tmp_path / "parts") == trained(tmp_path / "whole")


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path):
    """Earlier versions wrote such ones; the one before is taken."""
    wanted = trained(tmp_path / "whole")
    trained(tmp_path / "parts", steps=4)
    kept = Checkpointer(tmp_path / "parts" / "net", {"work": 1})
    spoilt = {k: v * float("nan") for k, v in kept.load().tensors.items()}
    kept.save(4, spoilt)
    with pytest.warns(UserWarning, match=r"going on from step 3:\n.*is not finite"):
        assert trained(tmp_path / "parts") == wanted


def test_nor_one_of_a_style_based_generator(digits, tmp_path, monkeypatch):
    def spoilt(scores):
        return generator_loss(scores) + (scores * 0).abs().sum().sqrt()

    monkeypatch.setattr(style_train, "generator_loss", spoilt)
    config = style_preset("style-smoke", steps=1)
    with pytest.raises(NotFinite, match="gradient is not finite at step 0"):
        style_train.train_style(config, digits, tmp_path, progress=False)
    assert not list(tmp_path.glob("gan/step-*"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"vae_widths": ()}, "vae_widths must have a number for each level"),
        ({"vae_widths": (0,)}, "vae_widths must be at least 2"),
        ({"latent_channels": 0}, "latent_channels must be at least 1"),
        ({"vae_layers": 0}, "vae_layers must be at least 1"),
        ({"condition_width": 0}, "condition_width must be at least 1"),
        ({"unet_widths": (-8, 8)}, "unet_widths must be at least 2"),
        ({"unet_widths": (5, 7)}, "5 is no multiple of that"),
        ({"unet_widths": (8, 8), "attention": (True,)}, r"attention has 1 value\(s\) for the 2"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_its_option(wrong, said):
    with pytest.raises(InputError, match=said):
        PriorConfig("wrong", **wrong)

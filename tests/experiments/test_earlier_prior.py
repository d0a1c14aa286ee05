"""The priors of less training come from the repository's history."""

import importlib
import json
import subprocess

import pytest
import torch

from ld3m_min.errors import InputError
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.training_log import TrainingLog


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend("tools")
    return importlib.import_module("earlier_prior")


def test_the_sitting_with_so_many_steps_is_found(tmp_path, tool):
    repository, prior = tmp_path / "repository", "priors/unfinished"
    (repository / prior / "unet").mkdir(parents=True)

    def git(*words):
        who = ("-c", "user.name=t", "-c", "user.email=t@t")
        subprocess.run(["git", *who, *words], cwd=repository, check=True, capture_output=True)

    git("init")
    for steps in (100, 250):
        (repository / prior / "training.json").write_text(json.dumps({"denoiser_steps": steps}))
        (repository / prior / "unet/weights").write_text(f"after {steps}")
        git("add", ".")
        git("commit", "-m", f"{steps} steps")
    git("rm", "-r", prior)
    git("commit", "-m", "finished: it has another folder now")

    def found(steps):
        tool.from_history(steps, tmp_path / str(steps), repository=repository, sittings=prior)
        return (tmp_path / str(steps) / "unet/weights").read_text()

    assert [found(100), found(250)] == ["after 100", "after 250"]
    with pytest.raises(InputError, match=r"of 250, 100 steps, not of 7; .*--unshallow"):
        found(7)
    assert not (tmp_path / "7").exists(), "nothing is written of another prior"


def test_it_gets_the_decoder_that_its_encoder_got_later(tmp_path, tool):
    prior = LatentDiffusionPrior.from_pretrained("digits")
    prior.save_pretrained(tmp_path / "early")
    TrainingLog(10, 100, 60.0).save(tmp_path / "early")
    weight = prior.autoencoder.decoder.conv_out.bias.data
    weight += 1
    LatentDiffusionPrior(prior.autoencoder, None, None).save_pretrained(tmp_path / "later")
    TrainingLog(10, 0, 80.0, decoder_steps=7).save(tmp_path / "later")
    found = tool.with_its_decoder(tmp_path / "early", tmp_path / "later")
    assert torch.equal(found.autoencoder.decoder.conv_out.bias, weight)
    assert TrainingLog.of(tmp_path / "early") == TrainingLog(10, 100, 60.0, decoder_steps=7)
    prior.autoencoder.encoder.conv_out.bias.data += 1
    prior.save_pretrained(tmp_path / "another")
    with pytest.raises(InputError, match="other latents"):
        tool.with_its_decoder(tmp_path / "early", tmp_path / "another")

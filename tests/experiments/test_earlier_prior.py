"""The priors of less training come from the repository's history."""

import importlib
import json
import subprocess

import pytest

from ld3m_min.errors import InputError


@pytest.fixture
def earlier(monkeypatch):
    monkeypatch.syspath_prepend("tools")
    return importlib.import_module("earlier_prior").from_history


def test_the_sitting_with_so_many_steps_is_found(tmp_path, earlier):
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
        earlier(steps, tmp_path / str(steps), repository=repository, sittings=prior)
        return (tmp_path / str(steps) / "unet/weights").read_text()

    assert [found(100), found(250)] == ["after 100", "after 250"]
    with pytest.raises(InputError, match=r"of 250, 100 steps, not of 7; .*--unshallow"):
        found(7)
    assert not (tmp_path / "7").exists(), "nothing is written of another prior"

"""Several processes make the set that one makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ld3m_min.commands import parsed
from ld3m_min.errors import InputError
from ld3m_min.io import launcher, several
from ld3m_min.presets import preset
from ld3m_min.prior.loading import load_prior
from ld3m_min.spaces import SPACES, build_space, draw_initial_images
from tests.several import CASES, made

ROOT = Path(__file__).parents[1]


def launched(*words):
    """What two processes print that `torchrun` starts: `python -m WORDS`."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, "--nproc-per-node", "2", "-m", *map(str, words)],
        cwd=ROOT,
        env=os.environ | quiet,
        text=True,
        capture_output=True,
        timeout=900,
    )


@pytest.mark.slow
def test_two_processes_make_what_one_makes(tmp_path):
    ran = launched("tests.several", tmp_path / "two")
    assert ran.returncode == 0, ran.stderr
    alone = made(tmp_path / "one")
    for number in (0, 1):
        together, said, resumed = torch.load(tmp_path / "two" / f"{number}.pt")
        assert together.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        assert said.startswith("the time given is up: 1 of 2 iterations are saved")
        assert resumed and all(torch.equal(v, together[f"DM ld3m {k}"]) for k, v in resumed.items())
    for algorithm, space in CASES:
        one, two = (
            sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob(f"{name}/**/*"))
            for n, name in (("one", f"{algorithm}-{space}"), ("two", f"{algorithm}-{space}"))
        )
        assert one == two and any("set/set.json" in p for p in one)


@pytest.mark.slow
def test_the_first_process_speaks_for_all(tmp_path):
    out = tmp_path / "run"
    words = ("smoke", "--space", "pixel", "--iterations", 1, "--out", out)
    ran = launched("ld3m_min", "distil", *words)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"10 images in {out / 'set'}"]


@pytest.mark.parametrize("name", SPACES)
def test_a_part_of_a_space_is_its_images_and_their_gradient(digits, name):
    config = preset("smoke", space=name)
    prior = load_prior("style-digits" if name.startswith("glad") else "digits")
    few, rows = digits, slice(3, 7)
    kind = SPACES[name]
    start = draw_initial_images(few, kind.per_class(config, prior), seed=0)
    space = build_space(config, start.images, start.labels, prior if kind.needs_prior else None)
    whole, part = space.images(), space.part(rows).images()
    assert torch.allclose(part, whole[rows], atol=1e-5)
    weights = torch.rand(part.shape, generator=torch.Generator().manual_seed(0))
    codes = list(space.parameters.values())
    wanted = torch.autograd.grad((whole[rows] * weights).sum(), codes)
    found = torch.autograd.grad((part * weights).sum(), codes)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, wanted, strict=True))


def test_shares_have_no_gaps_and_nobody_is_idle(monkeypatch):
    assert several.share(10, "classes") == slice(0, 10)
    monkeypatch.setattr(several, "count", lambda: 4)
    found = []
    for rank in range(4):
        monkeypatch.setattr(several.dist, "get_rank", lambda rank=rank: rank)
        found += range(10)[several.share(10, "classes")]
    assert found == [*range(10)]
    with pytest.raises(InputError, match="4 processes for 3 classes; start at most 3"):
        several.share(3, "classes")


def test_other_work_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (launcher.started(), launcher.number()) == (1, 0), "no launcher says where they meet"
    for name, value in (("RANK", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    for nonsense in ("0", "", "two", "-3"):
        monkeypatch.setenv("WORLD_SIZE", nonsense)
        assert launcher.started() == 1, nonsense
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (launcher.started(), launcher.number()) == (2, 1)
    with pytest.raises(InputError, match="evaluate is work for one process, and 2 were started"):
        parsed(["evaluate", "smoke"])
    with pytest.raises(InputError, match=r"not on mps|finds no Apple GPU"):
        several.joined("mps")

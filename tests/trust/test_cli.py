"""The command line: one sentence for a mistake, and no value that is silently ignored."""

import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from ld3m_min.run import distil

from .common import command, folder_of, is_one_sentence, load, settings


@pytest.fixture(scope="module")
def a_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    distil(settings(), data=load(folder_of(folder / "pets")), progress=False).save(folder / "set")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("--repeats", "0"),
        ("--architectures",),
    ],
    ids=" ".join,
)
def test_evaluate_refuses_what_makes_no_sense(a_set, words):
    """Zero repeats, no networks: refused, not replaced by a default or a traceback."""
    done = command(
        "evaluate", a_set / "set", "--dataset", a_set / "pets", "--preset", "smoke", *words
    )
    assert is_one_sentence(done), done.stdout + done.stderr[-300:]


@pytest.mark.parametrize(
    "words", [("--steps", "0"), ("--memory", "0"), ("--classes", "0")], ids=" ".join
)
def test_plan_refuses_what_makes_no_sense(words):
    """T = 0, no memory, no classes."""
    done = command("plan", "--no-probe", *words)
    assert is_one_sentence(done), done.stdout + done.stderr[-300:]


def test_a_device_that_is_not_there_is_a_sentence(tmp_path):
    """A CPU build of PyTorch is asked for a GPU."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    done = command(
        "distil",
        "--preset",
        "smoke",
        "--space",
        "pixel",
        "--device",
        "cuda",
        "--out",
        tmp_path / "run",
    )
    assert is_one_sentence(done), done.stderr[-300:]


def test_a_stop_in_the_first_moment_shows_no_traceback(tmp_path):
    """Ctrl-C while the libraries are still being imported."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ld3m_min",
            "distil",
            "--preset",
            "smoke",
            "--out",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err[-300:]
    assert process.returncode == 130


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_while_an_archive_is_unpacked_leaves_nothing_of_it(tmp_path, number, code):
    """The look at the images comes before the work: a stop there clears away what it had begun."""
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in sorted(folder_of(tmp_path / "pets").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    script = (
        "import os, sys\nfrom ld3m_min.data import archives\n"
        "def at_the_fifth(archive, member, count, *others):\n"
        f"    if count == 5: os.kill(os.getpid(), {int(number)})\n"
        "archives._check_size = at_the_fifth\n"
        "from ld3m_min.__main__ import main\n"
        f"sys.argv = ['ld3m_min', 'distil', {str(tmp_path / 'pets.zip')!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "LD3M_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr[-300:]
    assert "nothing had begun" not in done.stderr
    assert (tmp_path / "cache").is_dir()
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_no_iterations_under_the_automatic_plan(tmp_path):
    """`--iterations 0` gives the undistilled set in every space, as the API does."""
    done = command(
        "distil",
        "--preset",
        "smoke",
        "--space",
        "ld3m",
        "--iterations",
        0,
        "--plan",
        "auto",
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr[-300:]


def test_the_limit_of_the_process_is_the_memory_there_is():
    """Under a limit of address space, a plan for more than it is not called fitting."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)\n"
        "from ld3m_min.planner.machine import device_bytes\nprint(device_bytes('cpu') <= 6 * 2**30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr[-300:]

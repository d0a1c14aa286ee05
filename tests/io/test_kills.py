"""Killed for real, at random moments and at changes of files, and nothing is lost. `make soak` does
the same at length.

Cases 1, 2 and 3 of the list of faults in the book's determinism page: SIGKILL, exact resume,
SIGTERM and its relatives.
"""

import random
import signal
import sys

import pytest

from tests.killing import (
    Warm,
    content,
    distil_command,
    evaluate_command,
    experts_command,
    kill_series,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
SEED = 20260305


@pytest.fixture(scope="module")
def warm():
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="module")
def trained(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills") / "experts"
    ended = warm.run(*experts_command(folder))
    assert ended.code == 0, ended.output
    return folder, ended.seconds


@pytest.fixture(scope="module")
def experts(trained):
    return trained[0]


@pytest.fixture(scope="module")
def experts_seconds(trained):
    return trained[1]


@pytest.mark.parametrize(
    "algorithm, space", [("DC", "pixel"), ("DM", "ld3m"), ("MTT", "autoencoder")]
)
def test_distillation_killed_at_random(warm, experts, tmp_path, algorithm, space):
    command = distil_command(algorithm, space, experts)
    whole = warm.run(*command(tmp_path / "whole"))
    assert whole.code == 0, whole.output
    kills, finished = kill_series(
        warm,
        command,
        tmp_path,
        content(tmp_path / "whole"),
        kills=2,
        draws=random.Random(SEED),
        seconds=whole.seconds,
    )
    assert kills == 2 and finished >= 1


def test_killed_at_changes_of_files(warm, tmp_path):
    """Before the n-th creation, flush, rename or removal.

    Every second time a file is torn, as when the power fails.
    """
    command = distil_command("DM", "pixel", iterations=2)
    assert warm.run(*command(tmp_path / "whole")).code == 0
    wanted = content(tmp_path / "whole")
    for n in range(0, 90, 13):
        out = tmp_path / f"at-{n}"
        assert warm.run(*command(out), before=n, below=out, torn=n % 2 == 1).killed
        again = warm.run(*command(out))
        assert again.code == 0, again.output
        assert content(out) == wanted, n


def test_experts_killed_at_random(warm, experts, experts_seconds, tmp_path):
    draws = random.Random(SEED)
    assert (
        kill_series(
            warm,
            experts_command,
            tmp_path,
            content(experts),
            kills=2,
            draws=draws,
            seconds=experts_seconds,
        )[0]
        == 2
    )


def test_evaluation_killed_at_random(warm, tmp_path):
    assert warm.run(*distil_command("DM", "pixel", iterations=0)(tmp_path / "real")).code == 0

    def command(out):
        return evaluate_command(tmp_path / "real" / "set", out, "ConvNet", "ViT")

    whole = warm.run(*command(tmp_path / "whole"))
    assert whole.code == 0 and "unseen" in whole.output
    kills, _ = kill_series(
        warm,
        command,
        tmp_path,
        whole.output,
        kills=2,
        draws=random.Random(SEED),
        seconds=whole.seconds,
    )
    assert kills == 2


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGHUP, 129)],
)
def test_a_signal_saves_and_leaves_with_its_code(warm, tmp_path, number, code):
    command = distil_command("DM", "pixel", iterations=500)
    ended = warm.run(*command(tmp_path), once=tmp_path / "checkpoints" / "step-*", number=number)
    assert ended.code == code, ended.output
    assert (
        "of 500 iterations are saved; the same command goes on from there" in ended.output
        and "Traceback" not in ended.output
    )
    saved = int(ended.output.split(": ")[-1].split(" of")[0])
    assert (tmp_path / "checkpoints" / f"step-{saved:08d}" / "manifest.json").exists() and saved > 0


def test_a_deadline_is_code_75_and_each_start_gets_on(warm, tmp_path):
    command = distil_command("DM", "pixel", iterations=3)
    whole = tmp_path / "whole"
    assert warm.run(*command(whole)).code == 0
    codes = [warm.run(*command(tmp_path / "parts"), "--max-seconds", 0).code for _ in range(3)]
    assert codes == [75, 75, 0]  # at least one iteration a start, however short the time
    assert content(tmp_path / "parts") == content(whole)


def test_mistakes_are_code_2_and_one_line(warm, tmp_path):
    for arguments, message in (
        (
            ["distil", "--preset", "smoke", "--dataset", "nothing", "--out", tmp_path],
            "no data set called 'nothing'",
        ),
        (["distil", "--preset", "smoke", "--prior", "../x", "--out", tmp_path], "no prior '../x'"),
        (["evaluate", tmp_path], "it holds no set.json"),
        (["distil", "--preset", "tiny", "--out", tmp_path], "unknown preset 'tiny'"),
    ):
        ended = warm.run(*arguments)
        assert ended.code == 2 and message in ended.output and "Traceback" not in ended.output
        assert ended.output.startswith("ld3m_min: ") and ended.output.count("\n") == 1


def test_giving_up_survives_a_restart(warm, tmp_path):
    """Patience is part of the state.

    A run that gave up gives up again, with its last good state untouched.
    """
    command = [*distil_command("DM", "pixel", iterations=40)(tmp_path)]
    first = warm.run(*command, poison="nan_images")
    assert (
        first.code == 2
        and "not finite in 10 iterations in a row, the last one 11 (generated images)"
        in first.output
    )
    state = content(tmp_path)
    again = warm.run(*command)
    assert again.code == 2 and again.output == first.output and content(tmp_path) == state

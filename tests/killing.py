"""Real SIGKILLs that cost little: one warm process has everything imported, and forks a child for
each command line.

A child is killed after a time, or just before its n-th change of a file below a folder. Used by
`tests/io/test_kills.py` and by
`make soak`. Everything runs on one thread, so that a fork is safe and results are bit for bit the
same.
"""

import glob
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    `code` as shells count it (137: SIGKILL), `seconds` it ran, what it printed.
    """

    code: int
    seconds: float
    output: str

    @property
    def killed(self):
        return self.code == 128 + signal.SIGKILL


class Warm:
    """The warm process; `run` gives it one command line."""

    def __init__(self):
        quiet = {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
        }
        environment = os.environ | quiet | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(
        self,
        *arguments,
        after=None,
        once=None,
        number=signal.SIGKILL,
        before=None,
        below=None,
        torn=False,
        poison=None,
    ):
        """Run `python -m ld3m_min ARGUMENTS`.

        Args:
            *arguments: ARGUMENTS, made text.
            after: seconds until the signal `number` is sent.
            once: instead of `after`: a pattern of paths; the signal is sent when there is one.
            number: the signal.
            before: SIGKILL just before the n-th (from 0) change of a file below `below`.
            below: the folder whose files are counted.
            torn: with `before`: the file is first cut to half, as by a disk that lost power.
            poison: name of a function of this module that the child calls first.
        """
        request = {
            "arguments": [str(a) for a in arguments],
            "after": after,
            "once": once and str(once),
            "number": int(number),
            "before": before,
            "below": below and str(below),
            "torn": torn,
            "poison": poison,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the warm process has ended")
        return Ended(**json.loads(line))

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)


def distil_command(algorithm, space, experts=None, iterations=4):
    """The command line of a smoke distillation, given its folder."""
    extra = ["--experts", experts] if algorithm == "MTT" else []
    return lambda out: [
        "distil",
        "--preset",
        "smoke",
        "--algorithm",
        algorithm,
        "--space",
        space,
        "--iterations",
        iterations,
        "--out",
        out,
        *extra,
    ]


def experts_command(out):
    """The command line of the smoke experts."""
    return ["experts", "--preset", "smoke", "--out", out]


def evaluate_command(folder, out, *architectures):
    """The command line of an evaluation that can go on where it stopped."""
    words = ["evaluate", folder, "--preset", "smoke", "--architectures", *architectures]
    return [*words, "--out", out]


def content(folder):
    """What a run left, file by file, without what a clock decides.

    Relative path -> bytes or JSON.
    """
    found = {}
    for file in sorted(Path(folder).rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() or file.name == ".lock":
            continue
        if file.suffix == ".json":
            found[name] = _timeless(json.loads(file.read_text()))
        elif file.name == "SHA256SUMS":  # that of set.json hangs on the clock
            found[name] = [x for x in file.read_text().splitlines() if not x.endswith(".json")]
        else:
            found[name] = file.read_bytes()
    return found


def _timeless(value):
    if isinstance(value, dict):
        return {
            k: _timeless(v)
            for k, v in value.items()
            if k not in ("seconds", "checksum", "environment", "date")
        }
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def kill_series(warm, command, place, wanted, *, kills, draws, seconds):
    """Kill a command line at random moments, go on with the same one, and compare what is left.

    Args:
        warm: the process that runs the command line.
        command: folder -> arguments.
        place: a folder for the runs.
        wanted: :func:`content` of a run that was never killed, or its output (text); what is left
            must equal it bit for bit.
        kills: how many, at least.
        draws: a `random.Random`.
        seconds: about how long a whole run takes.

    Returns:
        (kills, how many runs were killed and finished).

    Raises:
        AssertionError: something was lost.
    """
    done = finished = 0
    out = Path(place) / "run-0"
    while True:
        after = draws.uniform(0.05, seconds) if done < kills else None
        ended = warm.run(*command(out), after=after)
        if ended.killed:
            done += 1
            continue
        assert ended.code == 0, f"after {done} kills: {ended.output}"
        same = ended.output == wanted if isinstance(wanted, str) else content(out) == wanted
        assert same, f"after {done} kills the result of {' '.join(map(str, command(out)))} differs"
        finished += 1
        if done >= kills:
            return done, finished
        out = Path(place) / f"run-{finished}"


def changes_of_files(warm, command, folder):
    """How many changes of files a command line makes below `folder`: where it can be killed."""
    low, high = 0, 1
    while warm.run(*command(Path(folder) / f"count-{high}"), before=high, below=folder).killed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        killed = warm.run(
            *command(Path(folder) / f"count-{low}-{middle}"), before=middle, below=folder
        ).killed
        low, high = (middle, high) if killed else (low, middle)
    return high


# -- in the warm process ---------------------------------------------------------------------------


def kill_before(n, folder, torn):
    """SIGKILL this process just before its n-th change of a file below `folder`."""
    seen, folder, fsync = [0], os.path.abspath(folder), os.fsync

    def step():
        if seen[0] == n:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    def hook(event, arguments):
        if event not in EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            return
        if os.path.abspath(os.fsdecode(arguments[0])).startswith(folder):
            step()

    def flush(handle):
        if torn and seen[0] == n:
            size = os.fstat(handle).st_size
            with suppress(OSError):  # a folder, or opened for reading
                os.ftruncate(handle, size // 2)
        step()
        fsync(handle)

    os.fsync = flush
    sys.addaudithook(hook)


def nan_images():
    """From the third iteration on the generator gives what is not a number."""
    from ld3m_min import run

    plain = run._match

    def match(setup, learner, iteration):
        if iteration < 2:
            return plain(setup, learner, iteration)
        return run.Match(float("nan"), {}, "generated images")

    run._match = match


def _child(request):
    from ld3m_min.__main__ import main

    sys.stdout = sys.stderr = text = io.StringIO()
    sys.argv = ["ld3m_min", *request["arguments"]]
    if request["poison"]:
        globals()[request["poison"]]()
    if request["before"] is not None:
        kill_before(request["before"], request["below"], request["torn"])
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException as error:
        import traceback

        traceback.print_exc()
        code = 99 if isinstance(error, Exception) else 98
    return code, text.getvalue()


def _fork(request):
    read, write = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 97
        try:
            os.close(read)
            code, text = _child(request)
            os.write(write, text.encode()[-60_000:])
        finally:
            os._exit(code if isinstance(code, int) else 1)
    os.close(write)
    if request["after"] is not None:
        deadline = began + request["after"]
        while (
            time.monotonic() < deadline
            and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        # a zombie takes it without effect: it is not yet waited for
        os.kill(child, request["number"])
    while (
        request["once"] and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        if glob.glob(request["once"]):
            os.kill(child, request["number"])
            break
        time.sleep(0.002)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {
        "code": 128 - code if code < 0 else code,
        "seconds": time.monotonic() - began,
        "output": output,
    }


def serve():
    """Import everything once, then answer one request a line."""
    import diffusers
    import sklearn.datasets
    import torch

    from ld3m_min import evaluate, run
    from ld3m_min.__main__ import main
    from ld3m_min.data import loading as data
    from ld3m_min.experts import train as experts
    from ld3m_min.prior import latent_diffusion as prior
    from ld3m_min.prior import train as train_prior

    torch.set_num_threads(1)
    data.load_data("digits")
    prior.LatentDiffusionPrior.from_pretrained("digits")
    _ = diffusers, sklearn.datasets, evaluate, experts, run, train_prior, main
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(_fork(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()

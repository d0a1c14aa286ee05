"""The long form of the tests of faults: `make soak`.

Kills, damage, hostile files; a report, and a record for the book.

    python tools/soak.py [--seed 0] [--kills 54] [--record book/_data/records/soak.json]

Every kill is a real SIGKILL at a moment drawn from the seed; a killed command line is started again
until it is done, and what it leaves must be bit for bit what a run leaves that was never killed.
Ends with 1 where anything was lost.
"""

import argparse
import os
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ["LD3M_FUZZ"] = "10"

from ld3m_min.config import ALGORITHMS, SPACES
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.environment import environment
from ld3m_min.io.files import write_json
from ld3m_min.synthetic import SyntheticSet
from tests import faults
from tests.killing import Warm, changes_of_files, content, evaluate_command, kill_series

ROOT, PROCESSES = Path(__file__).parents[1], 2


class Report:
    """What was tried, kind by kind, and how much of it left nothing lost."""

    def __init__(self):
        self.rows, self._lock = {}, threading.Lock()

    def add(self, kind, tried, survived, seconds):
        """Count faults of a kind, and print the line of that kind."""
        with self._lock:
            row = self.rows.setdefault(kind, {"tried": 0, "survived": 0, "seconds": 0.0})
            row["tried"] += tried
            row["survived"] += survived
            row["seconds"] = round(row["seconds"] + seconds, 1)
            counts = f"{row['survived']:6d} of {row['tried']:6d}"
            print(f"{time.strftime('%H:%M:%S')}  {kind:40s} {counts}", flush=True)

    def during(self, kind, job, at_stake):
        """Run a job that returns how many faults it tried.

        An error loses all that was at stake, and is printed.
        """
        began = time.monotonic()
        try:
            tried = survived = job()
        except Exception:
            traceback.print_exc()
            tried, survived = at_stake, 0
        self.add(kind, tried, survived, time.monotonic() - began)


def distillation(algorithm, space, experts, iterations=4):
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


def kills(warm, command, place, count, seed, text=False):
    """`count` kills of a command line; its result compared with one that was not killed."""
    whole = warm.run(*command(place / "whole"))
    assert whole.code == 0, whole.output
    wanted = whole.output if text else content(place / "whole")
    return kill_series(
        warm, command, place, wanted, kills=count, draws=random.Random(seed), seconds=whole.seconds
    )[0]


def prior_kills(warm, place, count, seed):
    """Kills of the training of a prior.

    The measuring of the prior, which is long, is cut short once the last checkpoint is there.
    """

    def command(out):
        return ["train-prior", "--preset", "smoke", "--out", out, "--records", place / "records"]

    def trained(out):
        stages = sorted(p.parent for p in out.rglob("manifest.json"))
        return {p.relative_to(out).as_posix() for p in stages} >= {
            "autoencoder/step-00000004",
            "unet/step-00000004",
        }

    def weights(out):
        return {
            k: v
            for k, v in content(out).items()
            if k.endswith("safetensors") and k.split("/")[0] in ("autoencoder", "unet")
        }

    def to_the_end(out):
        wait = 3.0
        while not trained(out):
            ended = warm.run(*command(out), after=wait)
            assert ended.killed or ended.code == 0, ended.output
            wait *= 1.5
        return weights(out)

    began = time.monotonic()
    wanted, seconds = to_the_end(place / "whole"), min(3.0, time.monotonic() - began)
    draws, done, out = random.Random(seed), 0, place / "run-0"
    while done < count:
        ended = warm.run(*command(out), after=draws.uniform(0.05, seconds))
        assert ended.killed, ended.output
        done += 1
        if trained(out):
            assert weights(out) == wanted, done
            out = place / f"run-{done}"
    assert to_the_end(out) == wanted
    return done


def every_change(warm, command, place, first, wanted, folder=None):
    """SIGKILL before every second change of a file, from `first` on.

    With `folder`, of a run that had been finished.
    """
    end, tried = changes_of_files(warm, command, place / "count") if folder is None else 60, 0
    for n in range(first, end, 2):
        out = folder or place / f"at-{n}"
        ended = warm.run(*command(out), before=n, below=out, torn=n // 2 % 2 == 1)
        if not ended.killed:
            break
        if folder is not None:
            SyntheticSet.load(out / "set")  # the earlier or the new one: always a whole set
        again = warm.run(*command(out))
        assert again.code == 0, again.output
        assert content(out) == wanted, n
        tried += 1
    return tried


def damage(place):
    """Every byte of a checkpoint flipped, and its files cut at every place."""
    tally = faults.damage_checkpoint(place / "checkpoint")
    return {region: tried for region, (tried, _) in tally.items()}


def malformed_tests():
    """The named malformed pictures and folders of `tests/data/test_data.py`; how many there are."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/data/test_data.py",
        "-k",
        "malformed or odd_folder",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout[-3000:]
    return len(re.findall(r"\.", ran.stdout.split("[100%]")[0]))


def fuzz(report):
    """hypothesis: ten times as many examples as in `make test`, other ones each time."""
    from tests.prior import test_hostile_files as hostile

    for kind, test, count in (
        ("fuzzed configurations", hostile.test_any_configuration_is_taken_or_refused, 300),
        ("fuzzed checkpoints", hostile.test_any_bytes_are_a_checkpoint_or_refused, 200),
        ("fuzzed manifests", hostile.test_any_bytes_are_a_manifest_or_refused, 200),
    ):

        def job(test=test, count=count):
            test()
            return count * hostile.LENGTH

        report.during(kind, job, count * hostile.LENGTH)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options.add_argument(
        "--kills", type=int, default=54, help="of each of distillation, experts and evaluation"
    )
    options.add_argument("--record", type=Path, default=RECORDS / "soak.json")
    given = options.parse_args()
    began, report, warm = time.monotonic(), Report(), queue.Queue()
    for _ in range(PROCESSES):
        warm.put(Warm())

    with tempfile.TemporaryDirectory(prefix="ld3m-soak-") as scratch:
        place = Path(scratch)
        os.environ["LD3M_CACHE"] = str(place / "cache")
        first = warm.get()
        assert first.run("experts", "--preset", "smoke", "--out", place / "experts").code == 0
        assert first.run(*distillation("DM", "pixel", None, 0)(place / "real")).code == 0
        once = distillation("DM", "pixel", None, 2)
        assert first.run(*once(place / "once")).code == 0
        finished = content(place / "once")
        warm.put(first)
        jobs = []

        def job(kind, at_stake, work):
            def run():
                mine = warm.get()
                try:
                    report.during(kind, lambda: work(mine), at_stake)
                finally:
                    warm.put(mine)

            jobs.append(run)

        def folder(name):
            (place / name).mkdir()
            return place / name

        each = -(-given.kills // 9)
        for i, (a, s) in enumerate((a, s) for a in ALGORITHMS for s in SPACES):
            job(
                "kills: distillation",
                each,
                lambda w, a=a, s=s, i=i: kills(
                    w,
                    distillation(a, s, place / "experts"),
                    folder(f"{a}-{s}"),
                    each,
                    given.seed * 100 + i,
                ),
            )
        third = -(-given.kills // 3)
        for i in range(3):
            job(
                "kills: experts",
                third,
                lambda w, i=i: kills(
                    w,
                    lambda out: ["experts", "--preset", "smoke", "--out", out],
                    folder(f"x{i}"),
                    third,
                    given.seed * 100 + 20 + i,
                ),
            )
            job(
                "kills: evaluation",
                third,
                lambda w, i=i: kills(
                    w,
                    lambda out: evaluate_command(
                        place / "real" / "set", out, "ConvNet", "ViT", "AlexNet"
                    ),
                    folder(f"e{i}"),
                    third,
                    given.seed * 100 + 30 + i,
                    text=True,
                ),
            )
        job(
            "kills: training of a prior",
            12,
            lambda w: prior_kills(w, folder("prior"), 12, given.seed * 100 + 40),
        )
        for i in (0, 1):
            job(
                "kills at changes of files",
                50,
                lambda w, i=i: every_change(w, once, folder(f"changes{i}"), i, finished),
            )
        job(
            "kills while a set is replaced",
            20,
            lambda w: every_change(w, once, place, 0, finished, folder=place / "once"),
        )
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(lambda run: run(), jobs))
        while not warm.empty():
            warm.get().close()

        regions = {}
        draws = random.Random(given.seed)
        report.during(
            "damaged checkpoints",
            lambda: regions.update(damage(place)) or sum(regions.values()),
            1000,
        )
        report.during(
            "mutated pictures",
            lambda: faults.broken_pictures(folder("pictures"), draws, 6000)[0],
            6000,
        )
        report.during("malformed pictures and folders, named", malformed_tests, 30)
        report.during("hostile archives", lambda: faults.try_archives(folder("archives")), 50)
        fuzz(report)

    seconds = round(time.monotonic() - began)
    lost = {
        k: r["tried"] - r["survived"] for k, r in report.rows.items() if r["tried"] != r["survived"]
    }
    write_json(
        given.record,
        {
            "schema": 1,
            "seed": given.seed,
            "processes": PROCESSES,
            "faults": report.rows,
            "regions": regions,
            "seconds": seconds,
            "environment": environment("cpu"),
        },
    )
    tried, survived = (sum(r[k] for r in report.rows.values()) for k in ("tried", "survived"))
    print(
        f"\n{survived:,} of {tried:,} faults survived in {seconds / 60:.1f} minutes "
        f"(seed {given.seed}); lost: {lost or 'nothing'}; record in {given.record.name}"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

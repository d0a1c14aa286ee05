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
from tests.killing import (
    Warm,
    changes_of_files,
    content,
    distil_command,
    evaluate_command,
    experts_command,
    kill_series,
)

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


class Soak:
    """All the faults, two of the killed commands at a time.

    Args:
        place: an empty folder.
        seed: of the moments of the kills.
        count: kills of each of distillation, experts and evaluation.
    """

    def __init__(self, place, seed, count):
        self.place, self.seed, self.count = place, seed, count
        self.report, self.regions = Report(), {}
        self._warm, self._jobs = queue.Queue(), []

    def run(self):
        """Try everything; the report then holds what was lost."""
        os.environ["LD3M_CACHE"] = str(self.place / "cache")
        for _ in range(PROCESSES):
            self._warm.put(Warm())
        self._prepare()
        self._add_kills_at_random()
        self._add_kills_at_changes()
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(lambda job: job(), self._jobs))
        while not self._warm.empty():
            self._warm.get().close()
        self._damage_and_hostile_files()
        fuzz(self.report)

    def _folder(self, name):
        (self.place / name).mkdir()
        return self.place / name

    def _prepare(self):
        """What the commands start from: experts, a set of real images, a finished run."""
        warm = self._warm.get()
        self._once = distil_command("DM", "pixel", iterations=2)
        for line in (
            experts_command(self.place / "experts"),
            distil_command("DM", "pixel", iterations=0)(self.place / "real"),
            self._once(self.place / "once"),
        ):
            assert warm.run(*line).code == 0
        self._finished = content(self.place / "once")
        self._warm.put(warm)

    def _add(self, kind, at_stake, work):
        """A job, to be run with a warm process; `work` takes it and returns how many it tried."""

        def run():
            warm = self._warm.get()
            try:
                self.report.during(kind, lambda: work(warm), at_stake)
            finally:
                self._warm.put(warm)

        self._jobs.append(run)

    def _add_kills(self, kind, count, number, command, text=False):
        """`count` kills of a command; `number` tells the draws of one job from another's."""
        place, seed = self._folder(f"kills-{number}"), self.seed * 100 + number
        self._add(kind, count, lambda warm: kills(warm, command, place, count, seed, text))

    def _add_kills_at_random(self):
        cells = [(a, s) for a in ALGORITHMS for s in SPACES]
        each, third = -(-self.count // len(cells)), -(-self.count // 3)
        for i, (algorithm, space) in enumerate(cells):
            command = distil_command(algorithm, space, self.place / "experts")
            self._add_kills("kills: distillation", each, i, command)
        for i in range(3):
            self._add_kills("kills: experts", third, 40 + i, experts_command)
            self._add_kills("kills: evaluation", third, 50 + i, self._evaluate, text=True)
        place, seed = self._folder("prior"), self.seed * 100 + 60
        self._add("kills: training of a prior", 12, lambda w: prior_kills(w, place, 12, seed))

    def _evaluate(self, out):
        real = self.place / "real" / "set"
        return evaluate_command(real, out, "ConvNet", "ViT", "AlexNet")

    def _add_kills_at_changes(self):
        once, finished = self._once, self._finished
        for first in (0, 1):
            place = self._folder(f"changes-{first}")
            self._add(
                "kills at changes of files",
                50,
                lambda w, place=place, first=first: every_change(w, once, place, first, finished),
            )
        self._add(
            "kills while a set is replaced",
            20,
            lambda w: every_change(w, once, self.place, 0, finished, folder=self.place / "once"),
        )

    def _damage_and_hostile_files(self):
        draws, during = random.Random(self.seed), self.report.during

        def checkpoints():
            self.regions = damage(self.place)
            return sum(self.regions.values())

        def pictures():
            return faults.broken_pictures(self._folder("pictures"), draws, 6000)[0]

        during("damaged checkpoints", checkpoints, 1000)
        during("mutated pictures", pictures, 6000)
        during("malformed pictures and folders, named", malformed_tests, 30)
        during("hostile archives", lambda: faults.try_archives(self._folder("archives")), 50)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options.add_argument(
        "--kills", type=int, default=54, help="of each of distillation, experts and evaluation"
    )
    options.add_argument("--record", type=Path, default=RECORDS / "soak.json")
    given, began = options.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ld3m-soak-") as scratch:
        soak = Soak(Path(scratch), given.seed, given.kills)
        soak.run()
    rows, seconds = soak.report.rows, round(time.monotonic() - began)
    write_json(
        given.record,
        {
            "schema": 1,
            "seed": given.seed,
            "processes": PROCESSES,
            "faults": rows,
            "regions": soak.regions,
            "seconds": seconds,
            "environment": environment("cpu"),
        },
    )
    tried, survived = (sum(r[k] for r in rows.values()) for k in ("tried", "survived"))
    lost = {k: r["tried"] - r["survived"] for k, r in rows.items() if r["tried"] != r["survived"]}
    print(
        f"\n{survived:,} of {tried:,} faults survived in {seconds / 60:.1f} minutes "
        f"(seed {given.seed}); lost: {lost or 'nothing'}; record in {given.record.name}"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

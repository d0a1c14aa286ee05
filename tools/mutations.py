"""Do the tests notice? Breaks one important line at a time and runs the tests of that line.

    python tools/mutations.py              all of them
    python tools/mutations.py --only 5 12  some of them

It works in a copy of the project. Each mutation is a line that must stand exactly once in the
package, what it is changed to, and the test files that are run until the first failure. A mutation
that no test notices makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """What line is broken, how, and which test files should notice."""

    about: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "forward process: the noise's weight",
        "math.sqrt(alpha_bar[-1]) * Z + math.sqrt(1 - alpha_bar[-1]) * noise",
        "math.sqrt(alpha_bar[-1]) * Z + math.sqrt(alpha_bar[-1]) * noise",
        ("test_sampler", "test_ld3m_generate"),
    ),
    Mutation(
        "guidance starts from the null class",
        "return e_u + scale * (e_c - e_u)",
        "return e_c + scale * (e_c - e_u)",
        ("test_sampler", "test_ld3m_generate"),
    ),
    Mutation(
        "the clean latent",
        "predicted_x0 = (z - math.sqrt(1 - a) * e) / math.sqrt(",
        "predicted_x0 = (z - (1 - a) * e) / math.sqrt(",
        ("test_sampler", "test_ld3m_generate"),
    ),
    Mutation(
        "equation (4): sigma in the mean",
        "math.sqrt(max(0.0, 1 - a_previous - sigma**2)) * e",
        "math.sqrt(max(0.0, 1 - a_previous)) * e",
        ("test_sampler",),
    ),
    Mutation(
        "residual into the noise: of the mixed latent",
        "e_mixed = (z - math.sqrt(a) * x0)",
        "e_mixed = (z - math.sqrt(a) * source)",
        ("test_sampler",),
    ),
    Mutation(
        "equation (6): the mean's share",
        "mean = (1 - w) * mean + w * source",
        "mean = mean + w * source",
        ("test_sampler",),
    ),
    Mutation(
        "equation (6): the weight t / T",
        's = (k + 1) / n if self.into == "mean"',
        's = k / n if self.into == "mean"',
        ("test_sampler",),
    ),
    Mutation(
        "chunks: each with its own inputs",
        "x if x is None else x[i : i + size] for x in inputs",
        "x if x is None else x[:size] for x in inputs",
        ("test_backprop",),
    ),
    Mutation(
        "DC: rows are summed",
        "distances = ((1 - _cosine(a, b)).sum() for a, b in rows)",
        "distances = ((1 - _cosine(a, b)).mean() for a, b in rows)",
        ("test_losses", "test_dc"),
    ),
    Mutation(
        "DM: means, not sums",
        "return torch.stack([part.mean(0) for part in torch.split(embedding, counts)])",
        "return torch.stack([part.sum(0) for part in torch.split(embedding, counts)])",
        ("test_distillers", "test_losses"),
    ),
    Mutation(
        "siamese augmentation: one draw for real and synthetic",
        "synthetic = self.data.normalise(images[order], synthetic=True)",
        "synthetic = self.data.normalise(images[order], synthetic=True).flip(3)",
        ("test_distillers",),
    ),
    Mutation(
        "MTT: the adjoint recursion",
        "adjoint = adjoint - lr * d_theta",
        "adjoint = adjoint + lr * d_theta",
        ("test_losses", "test_mtt"),
    ),
    Mutation(
        "MTT: the gradient of the rate",
        "grad_lr -= along.detach()",
        "grad_lr += along.detach()",
        ("test_losses", "test_mtt"),
    ),
    Mutation(
        "the chain rule (7) at the images",
        "images.backward(S.grad)",
        "images.backward(S.grad.abs())",
        ("test_run",),
    ),
    Mutation(
        "resume: the momentum", 'if f"momentum.{k}" in found.tensors:', "if False:", ("test_run",)
    ),
    Mutation(
        "identity: the training images",
        '"data": data.train.digest, "mean"',
        '"data": "", "mean"',
        ("test_identity",),
    ),
    Mutation(
        "identity: the prior's weights",
        'content["prior"] = prior.digest',
        'content["prior"] = ""',
        ("test_identity",),
    ),
    Mutation(
        "classes by name",
        "rows = tuple(next(iter(found[n])) for n in names)",
        "rows = tuple(range(len(names)))",
        ("test_class_matching",),
    ),
    Mutation(
        "backends: what is wrong is noticed",
        "if not deviation <= ROUNDING[self.ran[name].precision]:",
        "if False:",
        ("test_backends",),
    ),
    Mutation(
        "seeds: of an iteration",
        "digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()",
        "digest = hashlib.sha256(repr((int(seed), *purpose[:1])).encode()).digest()",
        ("test_checkpoints", "test_distillers", "test_run"),
    ),
    Mutation(
        "checkpoints: the checksum is looked at",
        'if hashlib.sha256(data).hexdigest() != manifest["sha256"].get("state.safetensors"):',
        "if False:",
        ("test_faults", "test_checkpoints"),
    ),
    Mutation(
        "evaluation: averaged weights",
        "torch._foreach_lerp_(average, group.params, 1 - ema_decay(epoch, config.ema))",
        "torch._foreach_lerp_(average, group.params, 1.0)",
        ("test_side_by_side", "test_evaluate", "test_evaluation"),
    ),
    Mutation(
        "encode: the latents' scale",
        "return z * self.scale",
        "return z",
        ("test_prior", "test_compvis"),
    ),
)


def place_of(before):
    """The one file of the package in which the text stands."""
    found = [
        f
        for f in sorted((ROOT / "ld3m_min").rglob("*.py"))
        for _ in range(f.read_text(encoding="utf-8").count(before))
    ]
    if len(found) != 1:
        raise SystemExit(
            f"{before!r} stands {len(found)} times in the package, not once; "
            "update tools/mutations.py"
        )
    return found[0]


def tests_of(names):
    """The test files of these names, wherever they are."""
    return [next(iter(sorted((ROOT / "tests").rglob(f"{n}.py")))).relative_to(ROOT) for n in names]


def noticed(mutation, copy):
    """Name of the first test that fails with the mutation in place, or None."""
    file = copy / place_of(mutation.before).relative_to(ROOT)
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            *map(str, tests_of(mutation.tests)),
        ]
        done = subprocess.run(
            words, cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
        return failed.group(1) if failed else None
    finally:
        file.write_text(original, encoding="utf-8")


def main():
    """Try the mutations, print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=int, nargs="+", metavar="N", help="numbers of the mutations to try, from 1"
    )
    only = parser.parse_args().only or range(1, len(MUTATIONS) + 1)
    for mutation in MUTATIONS:
        place_of(mutation.before), tests_of(mutation.tests)  # a stale table is said before the work
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(".venv", ".git", "_build", "runs", "__pycache__"),
        )
        for i in only:
            began, test = time.monotonic(), noticed(MUTATIONS[i - 1], copy)
            missed += test is None
            about, seconds = MUTATIONS[i - 1].about, time.monotonic() - began
            print(f"{i:2d}  {about:55s} {test or 'NOT NOTICED'}  ({seconds:.0f} s)", flush=True)
    print(f"{missed} not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

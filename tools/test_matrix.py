"""The numeric tests under each instruction set and number of threads that this machine has.

Prints a row for each.

    python tools/test_matrix.py              all settings but those of `make test`
    python tools/test_matrix.py avx2 threads-2

What a processor lacks is named and left out: PyTorch would silently take less.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
NUMERIC = (
    "losses",
    "sampler",
    "backprop",
    "backends",
    "networks",
    "experts",
    "evaluate",
    "side_by_side",
    "distillers",
    "augment",
    "run",
    "determinism",
    "checkpoints",
)
# shapes are checked by `make test`; here it is the numbers
PLAIN = ("-o", "addopts=-q", "-p", "no:cacheprovider")
SETTINGS = {  # name -> (environment, flags of the processor that it needs)
    "threads-1": ({"OMP_NUM_THREADS": "1"}, ()),
    "threads-2": ({"OMP_NUM_THREADS": "2"}, ()),
    "sse41": ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, ("sse4_1",)),
    "avx2": ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, ("avx2", "fma")),
    "avx512": (
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
        ("avx512f", "avx512bw", "avx512vl", "avx512dq"),
    ),
    "amx": (
        {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"},
        ("avx512f", "amx_tile", "amx_bf16"),
    ),
}


def flags():
    """What the processor can do, as Linux names it; an empty set elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(
        next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ())
    )


def of_make_test(has):
    """What `make test` runs already: one thread, and the most that the processor can do."""
    able = [name for name, (_, needs) in SETTINGS.items() if needs and has >= set(needs)]
    return {"threads-1", *able[-1:]}


def files():
    """The numeric tests' files, wherever they lie below tests/, and all of parity."""
    found = [
        f
        for n in NUMERIC
        for f in sorted((ROOT / "tests").rglob(f"test_{n}.py"))
        if "parity" not in f.parts
    ]
    return [str(f.relative_to(ROOT)) for f in found] + ["tests/parity"]


def main(names):
    """Run the chosen settings; returns how many failed."""
    failed, has = 0, flags()
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"this machine: PyTorch {torch.__version__}, {capability}, {os.cpu_count()} cores")
    for name in names or [n for n in SETTINGS if n not in of_make_test(has)]:
        changes, needs = SETTINGS[name]
        if lacks := [f for f in needs if f not in has]:
            print(f"{name:10s} left out: the processor lacks {', '.join(lacks)}", flush=True)
            continue
        # with two threads each, tests run one after the other: two such processes slow each other
        together = (
            [] if changes.get("OMP_NUM_THREADS") == "2" else ["-n", "auto", "--dist", "worksteal"]
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *files(), *together, *PLAIN],
            cwd=ROOT,
            check=False,
            env={"OMP_NUM_THREADS": "1", **os.environ, **changes},
            capture_output=True,
            text=True,
        )
        failed += done.returncode != 0
        last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
        print(f"{name:10s} {time.monotonic() - began:5.0f} s  {last}", flush=True)
        if done.returncode:
            print(
                "\n".join(
                    line
                    for line in done.stdout.splitlines()
                    if line.startswith(("FAILED", "ERROR", "E  "))
                )[:5000],
                flush=True,
            )
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

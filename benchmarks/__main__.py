"""Make the records of the speed page that are missing on this device: `python -m benchmarks`.

`--missing` lists all that are missing, on any device.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import write_json

from . import forecasts, generator, iteration
from .cases import CASES

OTHERS = {
    "iterations": iteration.iterations,
    "scaling": iteration.scaling,
    "forecast-cin256": forecasts.forecasts,
}


def names(device):
    """What can be measured on a kind of device.

    The generator's cases for it, and on the CPU the rest.
    """
    cases = [c.name for c in CASES.values() if c.device == device]
    return [*cases, *OTHERS] if device == "cpu" else cases


def record_of(records, name):
    """The file of a measurement."""
    return Path(records) / f"bench-{name}.json"


def missing(records):
    """(name, command) of every measurement that has no record, the CPU's first."""
    todo = [(n, d) for d in ("cpu", "cuda") for n in names(d) if not record_of(records, n).exists()]
    return [(n, f"python -m benchmarks --case {n} --device {d}") for n, d in todo]


def main():
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=[*CASES, *OTHERS],
        help="only this (repeatable); made anew",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--again", action="store_true", help="measure anew what has a record")
    parser.add_argument(
        "--missing",
        action="store_true",
        help="list what has no record, with the commands, and stop",
    )
    given = parser.parse_args()
    if given.missing:
        print(
            "\n".join(f"bench-{n}:  {command}" for n, command in missing(given.records))
            or "nothing is missing"
        )
        return
    kind = torch.device(given.device).type
    todo = given.case or [
        n for n in names(kind) if given.again or not record_of(given.records, n).exists()
    ]
    for name in todo:
        print(f"{name} ...", flush=True)
        if name in CASES:
            record = generator.measure(CASES[name], given.device, repeats=given.repeats)
            for row, r in record["rows"].items():
                if "median" in r:
                    peak = r["peak_bytes"] / 2**20
                    print(
                        f"  {row:38s} {r['median']:8.3f} s  {r['ratio']:5.2f} x  {peak:9.1f} MiB",
                        flush=True,
                    )
                else:
                    print(f"  {row:38s} {r.get('error', 'does not fit')}", flush=True)
        else:
            record = OTHERS[name](given.device, repeats=given.repeats)
        given.records.mkdir(parents=True, exist_ok=True)
        write_json(record_of(given.records, name), record)


if __name__ == "__main__":
    main()

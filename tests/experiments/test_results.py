"""What pages read of the records of one preset."""

import json
import math
import re

import pytest

from ld3m_min.config import ARCHITECTURES
from ld3m_min.experiments import grids, real_images
from ld3m_min.experiments.cells import ABLATION
from ld3m_min.experiments.results import Results, kinds, label


def write(folder, space, seed, accuracy, **more):
    """A record of ten-image digits, whose networks all read `accuracy`, one after the other."""
    cell = {"dataset": "digits", "preset": "evidence", "space": space, "algorithm": "DM"}
    cell |= {"ipc": 1, "seed": seed, "variant": ""} | more.pop("cell", {})
    record = {
        "cell": cell,
        "config": {"network": {"name": "ConvNet"}},
        "split": "test",
        "accuracies": {a: [accuracy, accuracy + 0.02] for a in ARCHITECTURES},
        "grad_Z": [2.0, None, 4.0],
        "seconds_per_iteration": 1.0 + seed,
        "peak_memory_bytes": 2**30,
    }
    name = "-".join(str(v) for v in cell.values())
    (folder / f"{name}.json").write_text(json.dumps(record | more))


@pytest.fixture
def found(tmp_path):
    for seed, (one, other) in enumerate(((0.70, 0.72), (0.72, 0.75), (0.74, 0.78))):
        write(tmp_path, "autoencoder", seed, one)
        write(tmp_path, "ld3m-code", seed, other)
    write(tmp_path, "pixel", 0, 0.5)
    write(tmp_path, "pixel", 0, 0.9, cell={"preset": "cpu"})
    return Results("digits", "evidence", tmp_path)


def test_rows_are_of_one_preset_and_of_all_its_seeds(found):
    row = found.row(found.cell("autoencoder", "DM"))
    assert row[:2] == ("**73.0 ± 1.9**", 3)
    assert row[2:] == ("73.0",) * len(ARCHITECTURES)
    assert found.row(found.cell("pixel", "DM"))[0] == "**51.0 ± 1.0**"  # of this preset alone
    assert found.row(found.cell("ld3m-paper", "DM")) is None
    assert len(found.of(found.cell("ld3m-code", "DM"))) == 3


def test_a_comparison_is_paired_and_waits_for_two_seeds(found):
    p = found.compare(found.cell("ld3m-code", "DM"), found.cell("autoencoder", "DM"))
    assert p.n == 3 and p.mean == pytest.approx(0.03)
    assert p.differences == pytest.approx((0.02, 0.03, 0.04))
    assert found.compare(found.cell("pixel", "DM"), found.cell("autoencoder", "DM")) is None


def test_a_gap_says_how_many_sets_it_rests_on(found):
    """Of one set in common there is no interval, and its seed is compared with the same alone."""
    code, alone, pixel = (found.cell(s, "DM") for s in ("ld3m-code", "autoencoder", "pixel"))
    p = found.compare(code, alone)
    assert found.gap(code, alone) == p.points
    assert p.points == f"+3.0 ({100 * p.interval.low:+.1f} to {100 * p.interval.high:+.1f})"
    first = found.runs[alone].trainings([0]).mean()
    assert found.gap(pixel, alone) == f"{100 * (0.51 - first):+.1f} (one set each)"
    assert found.gap(found.cell("ld3m-paper", "DM"), alone) == "–"


def test_numbers_are_means_over_seeds(found):
    cell = found.cell("ld3m-code", "DM")
    assert found.mean(cell, "seconds_per_iteration") == pytest.approx(2.0)
    assert found.norm(cell) == "3"
    assert found.norm(cell, "c") == "–"  # older records don't have it
    assert math.isnan(found.mean(found.cell("ld3m-paper", "DM"), "peak_memory_bytes"))


def test_worth_is_read_off_the_curve(found, tmp_path):
    cell = found.cell("autoencoder", "DM")
    assert found.worth(cell) == ""
    points = [
        {"per_class": n, "accuracies": dict.fromkeys(ARCHITECTURES, accuracy)}
        for n, accuracy in ((1, 0.4), (10, 0.6), (100, 0.8))
    ]
    record = {"classes": list("0123456789"), "points": points}
    (tmp_path / "real-digits-evidence.json").write_text(json.dumps(record))
    again = Results("digits", "evidence", tmp_path)
    middle, low, high = map(float, re.findall(r"[\d.]+", again.worth(cell)))
    assert middle == pytest.approx(real_images.worth(record, 0.73), abs=0.06)
    assert low <= middle <= high
    write(tmp_path, "ddif", 0, 0.2)
    write(tmp_path, "fred", 0, 0.9)
    again = Results("digits", "evidence", tmp_path)
    assert again.worth(again.cell("ddif", "DM")) == "< 1"
    assert again.worth(again.cell("fred", "DM")) == "> 100"
    record["points"] = points[1:]
    (tmp_path / "real-digits-evidence.json").write_text(json.dumps(record))
    again = Results("digits", "evidence", tmp_path)
    assert again.worth(again.cell("ddif", "DM")) == "< 10"  # where the curve begins


def test_what_is_missing_names_its_command(found):
    names = ("evidence-steps", "evidence-ablation")
    said, n = found.missing(*names), sum(len(grids.grid(name)) for name in names)
    assert said.startswith(f"{n} of {n} cells") and f"GRIDS='{' '.join(names)}'" in said


def test_a_complete_grid_lacks_nothing(tmp_path):
    from ld3m_min.experiments.grids import grid

    for cell in grid("pilot"):
        (tmp_path / f"{cell.name}.json").write_text("{}")
    assert Results("digits", "evidence", tmp_path).missing("pilot") == ""


def test_kinds_and_labels():
    cells = kinds("evidence-ablation")
    assert len(cells) == 2 * len(ABLATION) + 1 and all(c.seed == 0 for c in cells)
    assert label(cells[0]).endswith(", z only")
    assert label(cells[0], (("z-only", "Z alone"),)).endswith(", Z alone")
    assert "," not in label(kinds("evidence")[0])


def test_the_primary_questions_are_answered_as_far_as_records_go(found):
    paper, code = found.answers().splitlines()
    assert paper.startswith("- ") and paper.endswith(" Not measured yet.")
    p = found.compare(found.cell("ld3m-code", "DM"), found.cell("autoencoder", "DM"))
    assert code.endswith(str(p)) and "+3.0 points" in code

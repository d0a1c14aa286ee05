"""Records and tables: functions of files, and the query for what is missing."""
import json
import subprocess
import sys

import pytest

from ld3m_min import results
from ld3m_min.config import eval_preset


def run_cli(*words, cwd):
    return subprocess.run([sys.executable, "-m", "ld3m_min", *words], capture_output=True, text=True, cwd=cwd, check=False)


def test_a_cell_becomes_a_record_becomes_a_row(digits, tmp_path):
    absent = results.missing("smoke", tmp_path / "records")
    assert len(absent) == len(results.grid("smoke")) and absent[0].space == "random"
    for cell in (absent[0], next(c for c in absent if (c.space, c.algorithm) == ("pixel", "DM"))):
        record = results.make_record(cell, digits, records=tmp_path / "records", runs=tmp_path / "runs", progress=False,
                                     architectures=("ConvNet", "AlexNet"))
        assert record == json.loads((tmp_path / "records" / f"{cell.name}.json").read_text())
        assert record["split"] == "test" and record["environment"]["torch"] and record["seconds"]["evaluate"] > 0
        assert all(len(v) == eval_preset("smoke").repeats for v in record["accuracies"].values())
    assert len(results.missing("smoke", tmp_path / "records")) == len(absent) - 2
    found = results.load_records(tmp_path / "records")
    frame = results.table(found, "digits", "smoke")
    assert len(frame) == 2 and list(frame.columns) == ["unseen", "95 % interval", "ConvNet", "AlexNet"]
    assert results.table(found, "digits", "cpu").empty
    assert results.cell_set(cell, tmp_path / "runs").ipc == 1


def test_committed_records_are_whole():
    """Each committed record belongs to the grid, names its protocol, and holds five repeats of five networks."""
    for record in results.load_records():
        cell = results.Cell(**record["cell"])
        assert cell in results.grid("digits")
        assert len(record["accuracies"]) == 5 and all(len(v) == 5 for v in record["accuracies"].values())
        assert record["split"] == "test" and record["data"]["splits"] == {"train": 1000, "validation": 297, "test": 500}
        assert record["environment"]["device"] and record["environment"]["commit"]


def test_command_line(tmp_path):
    listed = run_cli("table", "--missing", "--records", "records", cwd=tmp_path)
    assert listed.returncode == 0 and listed.stdout.count("table --run --only") == len(results.grid("digits"))
    made = run_cli("distil", "--preset", "smoke", "--space", "pixel", "--out", "o", cwd=tmp_path)
    assert made.returncode == 0 and (tmp_path / "o" / "set" / "set.json").exists(), made.stderr
    judged = run_cli("evaluate", "o/set", "--preset", "smoke", "--architectures", "ConvNet", "--repeats", "2", cwd=tmp_path)
    assert judged.returncode == 0 and "95 % interval" in judged.stdout, judged.stderr
    wrong = run_cli("distil", "--preset", "huge", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.strip().splitlines()[-1].startswith("ld3m_min: unknown preset 'huge'")
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("number, rows", [(1, 90), (2, 36), (3, 42), (4, 20)])
def test_paper_tables(number, rows):
    assert len(results.paper_table(number)) == rows


def test_unknown_grid_and_cell():
    with pytest.raises(ValueError, match="choose digits"):
        results.grid("imagenet21k")
    with pytest.raises(ValueError, match="has no cell"):
        results.run_grid("smoke", only="nothing")

"""The rate search: on validation images alone, resumable, and what the preset says."""

from ld3m_min.experiments.grids import RECORDS
from ld3m_min.experiments.rate_search import best_rates, search
from ld3m_min.io.files import read_json
from ld3m_min.presets import preset


def test_the_preset_holds_what_the_search_found():
    record = read_json(RECORDS / "tune-digits-cpu.json")
    assert record["split"] == "validation"
    best = best_rates(record["tries"])
    assert len(best) == 9
    for (algorithm, space), lr in best.items():
        assert preset("cpu", algorithm=algorithm, space=space).lr == lr


def test_a_search_goes_on_where_it_stopped(digits, tmp_path):
    rates = {("DM", "pixel"): (0.01,)}
    search("smoke", digits, records=tmp_path, runs=tmp_path, rates=rates, progress=False)
    first = read_json(tmp_path / "tune-digits-smoke.json")["tries"]
    best = search(
        "smoke",
        digits,
        records=tmp_path,
        runs=tmp_path,
        rates={("DM", "pixel"): (0.01, 0.1)},
        progress=False,
    )
    tries = read_json(tmp_path / "tune-digits-smoke.json")["tries"]
    assert (
        tries[:1] == first
        and [t["lr"] for t in tries] == [0.01, 0.1]
        and best[("DM", "pixel")] in (0.01, 0.1)
    )


def test_a_diverged_try_is_no_choice():
    tries = [
        {"algorithm": "DM", "space": "pixel", "lr": 1.0, "accuracies": None},
        {
            "algorithm": "DM",
            "space": "pixel",
            "lr": 0.1,
            "accuracies": {"ConvNet": [0.5], "VGG11": [0.3]},
        },
        {
            "algorithm": "DM",
            "space": "pixel",
            "lr": 0.2,
            "accuracies": {"ConvNet": [0.4], "VGG11": [0.2]},
        },
    ]
    assert best_rates(tries) == {("DM", "pixel"): 0.1}

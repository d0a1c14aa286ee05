"""What real images are worth: a curve of random real images, and the ceiling."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ld3m_min.commands import parsed
from ld3m_min.config import EvalConfig
from ld3m_min.errors import InputError
from ld3m_min.experiments.real_images import (
    WholeSplit,
    accuracy_at,
    ceiling,
    curve,
    measure,
    worth,
    worth_interval,
)
from ld3m_min.io import stop as signals
from ld3m_min.io.files import read_json, write_json
from ld3m_min.presets import eval_preset, for_larger_sets


def made_up(values, classes=10):
    points = [
        {"per_class": n, "seed": s, "accuracies": {"ConvNet": 0.99, "A": v, "B": v}}
        for n, accuracies in values.items()
        for s, v in enumerate(accuracies)
    ]
    return {"classes": [str(i) for i in range(classes)], "points": points}


def test_worth_is_read_off_the_curve_by_the_unseen_networks():
    record = made_up({1: [0.1, 0.3], 10: [0.4, 0.6], 100: [0.8, 0.8], 0: [0.9]})
    assert worth(record, 0.2) == pytest.approx(1) and worth(record, 0.5) == pytest.approx(10)
    assert worth(record, 0.35) == pytest.approx(math.sqrt(10)), "half way in the logarithm"
    assert math.isnan(worth(record, 0.19)) and worth(record, 0.85) == math.inf
    assert accuracy_at(record, math.sqrt(10)) == pytest.approx(0.35), "and back"
    with pytest.raises(InputError, match="images of each class"):
        accuracy_at(record, 101)
    assert ceiling(record).mean() == pytest.approx(0.9)


def test_the_interval_of_a_worth_has_the_luck_of_both():
    record = made_up({1: [0.2] * 3, 10: [0.5] * 3, 100: [0.8] * 3})
    rng = np.random.default_rng(0)
    same = np.full((8, 2), 0.5)
    assert worth_interval(record, same, rng) == pytest.approx((10, 10))
    seeds = same + np.linspace(-0.15, 0.15, 8)[:, None]
    low, high = worth_interval(record, seeds, rng)
    assert 4 < low < 10 < high < 25 and low * high == pytest.approx(100, rel=0.2)  # in logarithms
    lucky = made_up({1: [0.2] * 3, 10: [0.3, 0.5, 0.7], 100: [0.8] * 3})
    wide = worth_interval(lucky, same, rng)
    assert wide[0] < 10 < wide[1]  # of the real images alone
    low, high = worth_interval(record, np.full((8, 2), 0.19), rng)
    assert low == high == 0  # below the curve
    assert worth_interval(record, np.full((8, 2), 0.9), rng) == (math.inf, math.inf)
    with pytest.raises(InputError, match="fewer than two counts"):
        worth_interval(made_up({1: [0.1]}), same, rng)
    with pytest.raises(InputError, match="1 seeds say nothing"):
        worth_interval(record, same[:1], rng)


def test_the_interval_of_a_worth_covers_what_it_should_with_few_draws():
    """Real draws and seeds of known means: the true worth, 10, lies within 95 of 100 intervals."""
    rng, inside, trials = np.random.default_rng(1), 0, 200
    for _ in range(trials):
        points = {n: rng.normal(m, 0.03, 3).tolist() for n, m in ((1, 0.2), (10, 0.5), (100, 0.8))}
        seeds = np.tile(rng.normal(0.5, 0.03, (4, 1)), 2)
        low, high = worth_interval(made_up(points), seeds, rng, resamples=400)
        inside += low <= 10 <= high
    assert inside / trials > 0.93, "of the percentiles of a bootstrap, 88 in 100 hold it"


def test_a_curve_that_falls_is_taken_as_level():
    record = made_up({1: [0.3], 2: [0.2], 4: [0.5]})
    assert 2 < worth(record, 0.4) < 4 and worth(record, 0.3) <= 2


def test_a_level_curve_is_read_off_where_it_first_reaches():
    record = made_up({10: [0.8], 20: [0.9], 50: [0.85], 100: [0.9]})
    assert worth(record, 0.9) == 20 and 10 < worth(record, 0.8999) < 20
    assert worth(record, 0.8) == 10 and math.isnan(worth(record, 0.79))
    rises = made_up({10: [0.8], 100: [0.9]})
    assert worth(rises, 0.9) == 100, "and not a little above, which is beyond the curve"


@pytest.mark.parametrize("content", ["{}", "[1]", '{"points": [{"per_class": 1}]}'])
def test_a_foreign_file_in_the_records_place_is_named(digits, tmp_path, content):
    file = tmp_path / "real-digits-smoke.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"real-digits-smoke.json is no record with the points"):
        measure("smoke", digits, records=tmp_path, progress=False)


def test_a_training_that_diverged_counts_as_chance():
    record = made_up({1: [None, 0.5], 2: [0.6, 0.6]}, classes=5)
    assert curve(record)[1].values("A").tolist() == [0.2, 0.5]


def test_what_is_not_there_is_said():
    with pytest.raises(InputError, match="fewer than two counts"):
        worth(made_up({1: [0.1]}), 0.1)
    with pytest.raises(InputError, match="all real images is not in the record"):
        ceiling(made_up({1: [0.1]}))


def test_larger_sets_get_fewer_epochs_and_more_steps():
    base = EvalConfig(epochs=150, ema=0.967)
    one, ten, all_of_them = (for_larger_sets(base, n) for n in (1, 10, 1000))
    assert one == base
    assert ten.epochs == 47 and all_of_them.epochs == 15 and all_of_them.batch == 32
    steps = [p.epochs * math.ceil(n / p.batch) for p, n in ((one, 10), (ten, 100))]
    assert steps[0] < steps[1] < all_of_them.epochs * math.ceil(10_000 / 32)
    for p in (ten, all_of_them):
        assert (1 - p.ema) * p.epochs == pytest.approx((1 - base.ema) * base.epochs)


def test_a_scaled_preset_goes_by_the_images_and_another_by_ipc():
    one, many = eval_preset("evidence"), eval_preset("evidence", per_class=16)
    assert many == for_larger_sets(one, 16) and many.epochs == 100
    assert eval_preset("evidence", ipc=10) == for_larger_sets(one, 10)
    assert eval_preset("cpu", per_class=16) == eval_preset("cpu") != eval_preset("cpu", ipc=10)


def test_the_record_grows_and_goes_on(digits, tmp_path):
    whole = digits.train
    train = replace(whole, images=whole.images[:120], labels=whole.labels[:120])
    few = replace(digits, train=train)
    arguments = {"records": tmp_path, "runs": tmp_path, "seeds": 1, "progress": False}
    record = measure("smoke", few, counts=(1,), **arguments)
    assert len(record["points"]) == 1 and record["points"][0]["images"] == 10
    signals.stop_after(0)
    try:
        with pytest.raises(signals.Interrupted, match="1 sets are measured"):
            measure("smoke", few, counts=(1, 0), **arguments)
    finally:
        signals.stop_after(None)
    again = measure("smoke", few, counts=(1, 0), **arguments)
    assert again["points"][:1] == record["points"] and again["points"][1]["images"] == 120
    kept = read_json(tmp_path / "real-digits-smoke.json")
    assert kept["points"] == again["points"] and set(curve(kept)) == {1, 0}
    assert 0 <= ceiling(kept).mean() <= 1


def test_the_whole_split_is_a_set(digits):
    whole = WholeSplit(digits)
    assert torch.equal(whole.labels, digits.train.labels)
    assert whole.images().shape == (len(digits.train), 3, 32, 32) and whole.images().max() <= 1


def test_the_command_prints_the_curve(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "real-images",
        "--preset",
        "smoke",
        "--counts",
        "1",
        "2",
        "--seeds",
        "1",
        "--records",
        "here",
    ]
    parsed(words)()
    said = capsys.readouterr().out
    assert "1 of each class" in said and "2 of each class" in said
    points = read_json(tmp_path / "here" / "real-digits-smoke.json")["points"]
    assert {p["per_class"] for p in points} == {1, 2}


def test_points_of_another_evaluation_are_refused_and_so_is_no_seed(digits, tmp_path):
    for wrong, what in (({"seeds": 0}, "seeds"), ({"counts": (1, -1)}, "counts")):
        with pytest.raises(InputError, match=f"{what} of real images must be at least"):
            measure("smoke", digits, records=tmp_path, runs=tmp_path, progress=False, **wrong)
    file = tmp_path / "real-digits-smoke.json"
    point = {"key": "of another protocol", "per_class": 1, "seed": 0, "accuracies": {}}
    write_json(file, {"points": [point]})
    before = file.read_bytes()
    with pytest.raises(InputError, match="other images or of another evaluation; move it away"):
        measure("smoke", digits, records=tmp_path, runs=tmp_path, progress=False)
    assert file.read_bytes() == before

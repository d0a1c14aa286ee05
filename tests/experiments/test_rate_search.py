"""The rate search: on validation images alone, resumable, and what the preset says."""

import math
from dataclasses import replace

import pytest

from ld3m_min.commands import parsed
from ld3m_min.config import ARCHITECTURES, VALIDATORS
from ld3m_min.errors import InputError
from ld3m_min.experiments import network_rates as networks
from ld3m_min.experiments import rate_search
from ld3m_min.experiments.cells import Cell
from ld3m_min.experiments.grids import GRIDS
from ld3m_min.experiments.network_rates import network_rates, settled
from ld3m_min.experiments.places import RECORDS
from ld3m_min.experiments.rate_search import (
    FACTOR,
    FIRST_SEED,
    PAIRS,
    TRIES,
    Search,
    best_rates,
    climb,
    search,
)
from ld3m_min.io import stop as signals
from ld3m_min.io.files import read_json, write_json
from ld3m_min.presets import PRESETS, eval_preset, preset
from ld3m_min.run import distil


def test_the_preset_holds_what_the_search_found():
    record = read_json(RECORDS / "tune-digits-cpu.json")
    assert record["split"] == "validation"
    best = best_rates(record["tries"])
    assert len(best) == 9
    for (algorithm, space), lr in best.items():
        assert preset("cpu", algorithm=algorithm, space=space).lr == lr


def test_the_evidence_has_the_rates_that_the_search_found():
    record = read_json(RECORDS / "tune-digits-evidence.json")
    assert record["split"] == "validation"
    best = best_rates(record["tries"])
    for (algorithm, system), lr in best.items():
        tried = {
            t["lr"] for t in record["tries"] if (t["algorithm"], t["space"]) == (algorithm, system)
        }
        if len(tried) < TRIES or lr in (min(tried), max(tried)):
            continue  # this search isn't at its end
        name, _, variant = system.partition(":")
        cell = Cell("digits", "evidence", name, algorithm, 1, variant=variant)
        assert cell.config().lr == pytest.approx(lr), (algorithm, system)
    for name in ("autoencoder", "ld3m-paper", "ld3m-code"):  # those of the primary questions
        assert ("DM", name) in best
        ten, one = (preset("evidence", algorithm="DM", space=name, ipc=n).lr for n in (10, 1))
        assert ten == pytest.approx(10 * one)


def test_the_evaluated_networks_have_the_rates_that_random_real_images_settled():
    record, protocol = read_json(RECORDS / "networks-digits-evidence.json"), eval_preset("evidence")
    assert record["split"] == "validation"
    found = settled(record["tries"])
    assert found.keys() == {*ARCHITECTURES, *VALIDATORS}
    for network, lr in found.items():
        assert protocol.lr.get(network, protocol.lr["default"]) == pytest.approx(lr)
    for t in record["tries"]:  # and with it no training failed, on any of the sets
        if t["lr"] == found[t["network"]]:
            assert min(t["accuracies"]) > 0.5


def test_of_rates_that_do_as_well_the_lowest_is_settled_on():
    def entry(lr, *accuracies):
        return {"network": "MLP", "lr": lr, "accuracies": accuracies}

    tries = [entry(0.1, 0.5, 0.6), entry(0.3, 0.51, 0.6), entry(0.03, 0.5, 0.57)]
    assert settled(tries) == {"MLP": 0.1}
    assert settled([*tries, entry(1.0, 0.9, None)]) == {"MLP": 0.1}  # diverged on one set


@pytest.mark.parametrize("peak", [-6, -2, 0, 1, 2, 5])
def test_the_climb_ends_with_lower_values_on_both_sides(peak):
    asked = []

    def score(k):
        asked.append(k)
        return -abs(k - peak)

    assert climb(score, 0) == peak
    assert min(asked) < peak < max(asked) and len(asked) == len(set(asked)) >= 5
    assert max(asked) - min(asked) + 1 == len(asked), "no gap in what was tried"


def test_the_climb_goes_away_from_what_diverged_and_comes_to_an_end():
    assert climb(lambda k: -math.inf if k > -2 else k, 0) == -2
    assert climb(lambda k: math.nan if k > -2 else k, 0) == -2
    asked = []
    with pytest.warns(UserWarning, match="the best of 7 rates, 3.5, is at the edge"):
        climb(lambda k: asked.append(k) or float(k), 0, most=7)
    assert len(asked) == 7


@pytest.mark.parametrize("nothing", [-math.inf, math.nan])
def test_a_search_in_which_all_diverged_finds_no_rate(nothing):
    with pytest.warns(UserWarning, match="each of 5 rates that were tried diverged"):
        assert climb(lambda k: nothing, 5) is None
    tries = [{"network": "ViT", "lr": lr, "accuracies": [None, 0.5]} for lr in (0.1, 0.3)]
    with pytest.warns(UserWarning, match="ViT diverged at every rate"):
        assert settled(tries) == {}


@pytest.mark.parametrize("content", ["{}", "[1]", '{"tries": 3}', '{"tries": [{"lr": 1}]}'])
def test_a_foreign_file_in_a_records_place_is_named(digits, tmp_path, content):
    for name, run in (("tune", search), ("networks", network_rates)):
        file = tmp_path / f"{name}-digits-smoke.json"
        file.write_text(content)
        with pytest.raises(InputError, match=rf"{file.name} is no record with the tries"):
            run("smoke", digits, records=tmp_path, progress=False)


def test_every_system_has_as_many_tries(digits, tmp_path, monkeypatch):
    """At least five, around the scale of its own gradient."""
    monkeypatch.setattr(rate_search, "climb", lambda score, k: climb(score, k, tries=3, most=3))
    for only in ("DM-pixel", "MTT-autoencoder"):
        search("smoke", digits, records=tmp_path, runs=tmp_path, only=only, progress=False)
    tries = read_json(tmp_path / "tune-digits-smoke.json")["tries"]
    assert [(t["algorithm"], t["space"]) for t in tries] == [("DM", "pixel")] * 3 + [
        ("MTT", "autoencoder")
    ] * 3
    for t in tries:
        assert tuple(t["accuracies"]) == VALIDATORS and t["seed"] == FIRST_SEED
        assert math.log(t["lr"], FACTOR) == pytest.approx(round(math.log(t["lr"], FACTOR)))
    # at the middle rate the first step moves the images by a hundredth, within a factor of three
    config = preset("smoke", space="pixel", lr=tries[0]["lr"], seed=FIRST_SEED)
    start, made = (
        distil(preset("smoke", space="pixel", seed=FIRST_SEED, iterations=n, lr=config.lr),
               data=digits, progress=False)
        for n in (0, 1)
    )  # fmt: skip
    moved = (made.images() - start.images()).norm() / start.images().norm()
    assert 0.01 / 3 < moved < 0.03


def test_a_variant_of_the_ablation_is_searched_for_and_takes_what_was_found(
    digits, tmp_path, monkeypatch
):
    pair = ("DM", "ld3m-paper:c-only")
    assert pair in PAIRS
    cell = Cell("digits", "smoke", "ld3m-paper", "DM", 1, variant="c-only")
    seen = []

    def only_look(self, one, prior):
        seen.append(one.config)
        return one.config.lr

    monkeypatch.setattr(rate_search.Search, "score", only_look)
    options = {"records": tmp_path, "runs": tmp_path, "progress": False}
    assert search("smoke", digits, rates={pair: (0.1, 0.2)}, **options) == {pair: 0.2}
    assert seen[0] == replace(cell.config(), lr=0.1, seed=FIRST_SEED) and not seen[0].learn_z
    system = replace(cell, variant="").config().lr
    assert cell.config().lr == system
    changed = replace(PRESETS["smoke"], lr={("DM", "ld3m-paper:c-only"): 7.0})
    monkeypatch.setitem(PRESETS, "smoke", changed)
    assert cell.config().lr == 7.0 and replace(cell, variant="").config().lr == system


def test_seeds_of_the_search_are_none_of_the_records():
    seeds = {cell.seed for cells in GRIDS.values() for cell in cells}
    assert max(seeds) < FIRST_SEED


def test_a_search_goes_on_where_it_stopped(digits, tmp_path):
    rates = {("DM", "pixel"): (0.01,)}
    search("smoke", digits, records=tmp_path, runs=tmp_path, rates=rates, progress=False)
    first = read_json(tmp_path / "tune-digits-smoke.json")["tries"]
    rates = {("DM", "pixel"): (0.01, 0.1)}
    signals.stop_after(0)
    try:
        with pytest.raises(signals.Interrupted, match="1 tries are in the record"):
            search("smoke", digits, records=tmp_path, runs=tmp_path, rates=rates, progress=False)
    finally:
        signals.stop_after(None)
    best = search(
        "smoke", digits, records=tmp_path, runs=tmp_path, rates=rates, seeds=2, progress=False
    )
    tries = read_json(tmp_path / "tune-digits-smoke.json")["tries"]
    assert tries[:1] == first and [(t["lr"], t["seed"] - FIRST_SEED) for t in tries] == [
        (0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)
    ]  # fmt: skip
    assert best[("DM", "pixel")] in (0.01, 0.1) and best == best_rates(tries)


def test_tries_with_another_prior_of_that_name_are_refused_those_of_other_names_are_not(
    digits, tmp_path
):
    file = tmp_path / "tune-digits-smoke.json"
    tried = {"key": "", "algorithm": "DM", "prior": "of another training"}
    write_json(file, {"tries": [tried | {"space": "autoencoder"}, tried | {"space": "pixel"}]})

    def look(system):
        held = read_json(file)["tries"]
        one = Search("smoke", digits, file, held, tmp_path, 1, 1, None, "cpu", False)
        return one.prior(one.config("DM", system))

    assert look("glad-w").source == "style-digits"  # of another name than the digits' prior
    with pytest.raises(InputError, match="another prior of the name 'digits'"):
        look("ld3m-paper")


def test_a_search_for_nothing_is_refused(digits, tmp_path):
    with pytest.raises(InputError, match="nothing to search called 'DM-gan'; choose DC-pixel"):
        search("smoke", digits, records=tmp_path, runs=tmp_path, only="DM-gan", progress=False)


def entry(lr, first, second, **more):
    accuracies = None if first is None else {"ConvNet": [first], "MLP": [second]}
    return {"algorithm": "DM", "space": "pixel", "lr": lr, "accuracies": accuracies, **more}


def test_no_seed_is_refused_before_any_work(digits, tmp_path):
    for wrong in ({"seeds": 0}, {"repeats": 0}):
        with pytest.raises(InputError, match="of a rate search must be at least 1, not 0"):
            search("smoke", digits, records=tmp_path, runs=tmp_path, progress=False, **wrong)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (["--networks", "--seeds", "2"], "--seeds"),
        (["--networks", "--iterations", "3"], "--iterations"),
        (["--only", "DM-pixel", "--algorithm", "DC"], "--algorithm"),
    ],
)
def test_an_option_without_use_is_refused(words, lost):
    with pytest.raises(InputError, match=f"has no use for {lost}; leave it out"):
        parsed(["rate-search", "smoke", *words])()


def test_a_diverged_try_is_no_choice():
    tries = [entry(1.0, None, None), entry(0.1, 0.5, 0.3), entry(0.2, 0.4, 0.2)]
    assert best_rates(tries) == {("DM", "pixel"): 0.1}
    assert best_rates([*tries, entry(0.1, None, None, seed=1)]) == {("DM", "pixel"): 0.2}
    assert best_rates([entry(1.0, None, None)]) == {}


def test_a_shorter_try_says_nothing_of_a_longer_one():
    long = [entry(0.1, 0.9, 0.9, iterations=60), entry(0.3, 0.6, 0.6, iterations=60)]
    short = [entry(0.1, 0.1, 0.1, iterations=2)]
    assert best_rates([*long, *short]) == best_rates([*short, *long]) == {("DM", "pixel"): 0.1}


def test_the_evaluated_networks_rates_are_found_on_random_images(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "climb", lambda score, k: climb(score, k, tries=3, most=3))
    found = network_rates("smoke", digits, records=tmp_path, only="MLP", progress=False)
    file = tmp_path / "networks-digits-smoke.json"
    record = read_json(file)
    assert record["split"] == "validation" and len(record["tries"]) == 3
    assert all(len(t["accuracies"]) == networks.SETS for t in record["tries"])
    assert found["MLP"] in [t["lr"] for t in record["tries"]]
    again = network_rates("smoke", digits, records=tmp_path, only="MLP", progress=False)
    assert again == found and read_json(file) == record, "nothing is tried twice"
    assert set(networks.NAMES) == {*ARCHITECTURES, *VALIDATORS}
    with pytest.raises(InputError, match="unknown network 'LeNet'; choose ConvNet"):
        network_rates("smoke", digits, records=tmp_path, only="LeNet", progress=False)

"""The statistics of the experiments, on simulated data whose answer is known."""

import itertools
import math

import numpy as np
import pytest

from ld3m_min.errors import InputError
from ld3m_min.evaluate.cross_architecture import EvalResult
from ld3m_min.experiments import power, resampling, scores
from ld3m_min.experiments import statistics as st
from ld3m_min.experiments.cells import Cell

NETWORKS = ("AlexNet", "VGG11")


def rng(seed=0):
    return np.random.default_rng(seed)


def runs(accuracies, seeds=None, name="ours", networks=None):
    values = np.asarray(accuracies, dtype=np.float64)
    seeds = tuple(range(len(values))) if seeds is None else seeds
    networks = tuple(f"n{i}" for i in range(values.shape[1])) if networks is None else networks
    return st.Runs(name, seeds, networks, values)


def simulated(draws, n, trainings, between, within, difference=0.0):
    """Two systems of one network; half of what they share cancels in the pairs."""
    shared = 0.5 + 0.05 * draws.standard_normal((n, 1, 1))
    own = between * draws.standard_normal((n, 1, 1))
    a, b = (within * draws.standard_normal((n, 1, trainings)) for _ in range(2))
    return runs(shared + own + difference + a), runs(shared + b, name="theirs")


def record(seed=0, accuracies=None, **changes):
    cell = {"dataset": "digits", "preset": "cpu", "space": "ld3m-code", "algorithm": "DC", "ipc": 1}
    return {
        "cell": cell | {"seed": seed} | changes,
        "split": "test",
        "config": {"network": {"name": "ConvNet"}},
        "accuracies": accuracies
        or {"ConvNet": [0.9, 0.9], "AlexNet": [0.5, 0.7], "VGG11": [0.8, 0.8 + seed / 100]},
    }


# comparing


def test_a_pair_by_hand():
    a = runs([[[0.6, 0.8], [0.5, 0.5]], [[0.7, 0.7], [0.4, 0.6]], [[0.9, 0.9], [0.9, 0.9]]])
    b = runs([[[0.5], [0.5]], [[0.6], [0.6]], [[0.1], [0.1]]], seeds=(1, 0, 7), name="b")
    found = st.paired(a, b, rng())
    assert found.seeds == (0, 1) and found.n == 2 and found.left_out == (2, 7)
    np.testing.assert_allclose(found.differences, [0.0, 0.1], atol=1e-12)
    assert found.mean == pytest.approx(0.05) and found.std == pytest.approx(0.1 / math.sqrt(2))
    assert found.interval.method == "Student's t"
    assert found.interval.high - found.mean == pytest.approx(12.7062 * 0.05, rel=1e-5)
    assert str(found) == (
        "+5.0 points (95 % interval -58.5 to +68.5; 2 seeds); only one has seeds 2, 7"
    )


def test_the_same_seed_gives_the_same_numbers():
    a, b = simulated(rng(3), 8, 2, 0.02, 0.02, difference=0.01)
    assert st.paired(a, b, rng(1)) == st.paired(a, b, rng(1))
    there, back = st.paired(a, b, rng(1)), st.paired(b, a, rng(2))
    assert there.p == back.p and there.mean == -back.mean
    assert there.interval.low == pytest.approx(-back.interval.high, abs=0.003)


def test_one_network_that_carries_all_is_seen():
    values = 0.5 + 0.001 * rng().standard_normal((6, 3, 2))
    other = values + 0.001 * rng(1).standard_normal(values.shape)
    values[:, 1] += 0.09
    a, b = runs(values), runs(other, name="b")
    alone, without = st.by_network(a, b, rng()), st.without_each_network(a, b, rng())
    assert [*alone] == [*without] == ["n0", "n1", "n2"]
    assert [round(100 * r.mean) for r in alone.values()] == [0, 9, 0]
    assert alone["n1"].p == 2 / 2**6
    assert without["n0"].mean == pytest.approx(0.045, abs=0.001)
    assert abs(without["n1"].mean) < 0.001 and st.paired(a, b, rng()).mean > 0.028
    with pytest.raises(InputError, match="nothing is left"):
        st.without_each_network(a.only(["n1"]), b.only(["n1"]), rng())


def test_the_order_of_networks_does_not_matter():
    values = rng().uniform(size=(4, 2, 3))
    a, b = runs(values, networks=NETWORKS), runs(values[:, ::-1], networks=NETWORKS[::-1])
    assert all(r.mean == 0 for r in st.by_network(a, b, rng()).values())


def test_refusals_say_why():
    fine = np.full((2, 2, 2), 0.5)
    lost = fine.copy()
    lost[1, 0, 1] = np.nan
    with pytest.raises(InputError, match="1 accuracies are not a number, the first of seed 1, n0"):
        runs(lost)
    with pytest.raises(InputError, match="don't fit 2 seeds x 2 networks"):
        runs(fine[:, 0], networks=NETWORKS)
    for value in (62.0, np.inf):
        with pytest.raises(InputError, match="fractions"):
            runs(np.full((2, 1, 1), value))
    with pytest.raises(InputError, match="twice"):
        runs(fine, seeds=(3, 3))
    with pytest.raises(
        InputError, match="ours has seeds 0, 1, ours has 0, 9: a comparison needs 2"
    ):
        st.paired(runs(fine), runs(fine, seeds=(0, 9)), rng())
    with pytest.raises(InputError, match="other networks: n0, n1; AlexNet, VGG11"):
        st.paired(runs(fine), runs(fine, networks=NETWORKS), rng())
    with pytest.raises(InputError, match="no network ViT"):
        runs(fine).only(["ViT"])
    with pytest.raises(InputError, match="level"):
        st.paired(runs(fine), runs(fine), rng(), level=95)
    with pytest.raises(InputError, match="at least 2"):
        resampling.sign_flip(np.array([0.1]), rng=rng())
    with pytest.raises(InputError, match="not a number"):
        resampling.sign_flip(np.array([0.1, np.nan]), rng=rng())


def test_as_the_paper_prints():
    values = rng().uniform(size=(1, 2, 5))
    result = EvalResult({n: tuple(v) for n, v in zip(NETWORKS, values[0], strict=True)}, "test")
    found = st.as_printed(runs(values))
    assert (found.mean, found.std) == (
        pytest.approx(result.mean()),
        pytest.approx(result.std()),
    )
    assert str(st.Printed(0.4567, 0.0123)) == "45.7 ± 1.2"


# records


def test_records_are_grouped_by_all_but_the_seed():
    given = [record(2), record(0), record(5), record(0, space="pixel"), record(0, variant="T5")]
    groups = st.from_records(given)
    assert [(c.space, c.variant, c.seed) for c in groups] == [
        ("ld3m-code", "", 0),
        ("pixel", "", 0),
        ("ld3m-code", "T5", 0),
    ]
    ours = groups[Cell("digits", "cpu", "ld3m-code", "DC", 1)]
    assert ours.seeds == (0, 2, 5) and ours.networks == NETWORKS
    np.testing.assert_allclose(ours.accuracies[1], [[0.5, 0.7], [0.8, 0.82]])
    assert st.from_records(given[:1], networks=["ConvNet"]).popitem()[1].networks == ("ConvNet",)


def test_a_training_that_diverged_is_refused_or_counted():
    given = [record(0), record(1, {"AlexNet": [0.5, None], "VGG11": [0.5, 0.5]})]
    with pytest.raises(InputError, match="seed 1, AlexNet"):
        st.from_records(given)
    (counted,) = st.from_records(given, diverged=0.1).values()
    assert counted.diverged == ((1, "AlexNet"),) and counted.accuracies[1, 0, 1] == 0.1
    assert str(st.paired(counted, counted, rng())).endswith("; trainings that diverged: 2")
    assert {n: r.diverged for n, r in st.by_network(counted, counted, rng()).items()} == {
        "AlexNet": 2,
        "VGG11": 0,
    }
    with pytest.raises(InputError, match="fractions"):
        st.from_records(given, diverged=10)


def test_records_that_do_not_belong_together():
    with pytest.raises(InputError, match="two records of digits-cpu-ld3m-code-DC-ipc1-seed1"):
        st.from_records([record(1), record(1)])
    for other in ({"AlexNet": [0.5, 0.5]}, {"AlexNet": [0.5], "VGG11": [0.5]}):
        with pytest.raises(InputError, match="differ in their networks"):
            st.from_records([record(0), record(1, other)])
    with pytest.raises(InputError, match="has no network ViT"):
        st.from_records([record(0)], networks=["ViT"])


# the interval


@pytest.mark.parametrize("trainings, between, within", [(2, 0.02, 0.02), (2, 0.0, 0.02), (1, 1, 0)])
def test_the_interval_covers_the_truth(trainings, between, within):
    """With 8 seeds the coverage is 95 %; 600 experiments tell it to about 1 point.

    The limits are three standard errors and more.
    """
    draws, covered, n = rng(11), 0, 600
    for _ in range(n):
        own, a, b = (draws.standard_normal((8, r)) for r in (1, trainings, trainings))
        found = resampling.hierarchical_bootstrap(
            between * own + within * a, within * b, rng=draws, resamples=500
        )
        covered += found.low <= 0 <= found.high
    assert found.method == "bootstrap-t"
    assert 0.92 < covered / n < 0.98


def test_the_interval_of_one_system():
    values = 0.5 + 0.02 * rng().standard_normal((20, 3))
    found = resampling.hierarchical_bootstrap(values, rng=rng(), level=0.9)
    half = 1.729 * values.mean(1).std(ddof=1) / math.sqrt(20)  # Student's t
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert found.low < values.mean() < found.high


@pytest.mark.parametrize("n", [2, 5, 8])
def test_equal_differences_have_an_interval_of_no_width(n):
    found = st.paired(runs(np.full((n, 1, 1), 0.6)), runs(np.full((n, 1, 1), 0.5)), rng())
    assert found.interval.low == pytest.approx(0.1) == found.interval.high
    same = st.paired(runs(np.full((n, 1, 1), 0.5)), runs(np.full((n, 1, 1), 0.5)), rng())
    assert same.p == 1 and same.mean == same.interval.low == 0


# the test


def test_sign_flips_by_hand():
    assert resampling.sign_flip(np.array([1.0, 2, 3, 4, 5]), rng=rng()) == 0.0625
    # of 8 flips of (3, 2, -1), four have a sum of 4 or more, or -4 or less
    assert resampling.sign_flip(np.array([3.0, 2, -1]), rng=rng()) == 0.5
    values = rng(4).standard_normal(7)
    means = [abs(np.dot(s, values)) for s in itertools.product((1, -1), repeat=7)]
    expected = np.mean([m >= abs(values.sum()) - 1e-9 for m in means])
    assert resampling.sign_flip(values, rng=rng()) == pytest.approx(expected)


def test_many_seeds_draw_their_flips():
    values = 0.4 + rng(5).standard_normal(30)
    p = resampling.sign_flip(values, rng=rng(), resamples=4000)
    assert p == pytest.approx(power._sign_flips(values[None], rng(1))[0], abs=0.03)
    assert resampling.sign_flip(np.ones(17), rng=rng(), resamples=999) == pytest.approx(2 / 1000)


def test_false_positives_are_five_per_cent():
    draws = rng(2)
    found = [resampling.sign_flip(draws.standard_normal(8), rng=draws) for _ in range(800)]
    assert 0.025 < np.mean([p <= 0.05 for p in found]) < 0.075
    none = power.Spread(0.01, 0.02)
    for seeds in (8, 14):
        found = power.power(0.0, none, seeds=seeds, trainings=2, rng=draws, simulations=4000)
        assert 0.035 < found < 0.065
    assert power.power(9.0, none, seeds=5, trainings=2, rng=draws) == 0  # 0.0625 at least


def test_holm_by_hand():
    np.testing.assert_allclose(resampling.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(resampling.holm([0.5, 0.9, 0.2]), [1, 1, 0.6])
    assert resampling.holm([]).size == 0 and resampling.holm([0.2])[0] == 0.2
    for wrong in ([0.1, math.nan], [1.2]):
        with pytest.raises(InputError, match="between 0 and 1"):
            resampling.holm(wrong)


def test_a_summary_adjusts_within_the_primary_ones_and_within_the_others():
    interval = resampling.Interval(0.01, 0.03, 0.95, "bootstrap-t")

    def one(p):
        return st.Paired((0, 1), (0.01, 0.03), 0.02, 0.01, interval, p)

    found = st.summary({"b": one(0.01), "a": one(0.04), "c": one(0.04)}, "a")
    assert [*found.index] == ["a", "b", "c"]
    assert [*found["adjusted p"]] == [0.04, 0.02, 0.04]
    assert found.loc["a", ["difference", "low", "high", "seeds"]].tolist() == [2, 1, 3, 2]
    both = st.summary({"b": one(0.01), "a": one(0.04), "c": one(0.02), "d": one(0.3)}, ("a", "c"))
    assert [*both.index] == ["a", "c", "b", "d"]
    assert [*both["adjusted p"]] == [0.04, 0.04, 0.02, 0.3]  # two families
    waiting = st.summary({"a": one(0.04), "c": one(0.01)}, "a", absent=4)
    assert [*waiting["adjusted p"]] == [0.04, 0.05]  # as the least of five
    with pytest.raises(InputError, match="no comparison 'd'; choose b"):
        st.summary({"b": one(0.01)}, "d")


# power


def test_the_spread_is_found_again():
    a, b = simulated(rng(6), 4000, 3, 0.02, 0.01)
    found = power.spread(a, b)
    assert found.seeds == pytest.approx(0.02, rel=0.05)
    assert found.trainings == pytest.approx(0.01, rel=0.05)
    single = power.spread(*simulated(rng(6), 4000, 1, 0.02, 0.01))
    assert single.trainings == 0 and single.seeds == pytest.approx(math.sqrt(6) / 100, rel=0.05)
    assert power.spread(*simulated(rng(6), 4000, 2, 0.0, 0.02)).seeds < 0.006  # three errors


def test_power_equals_that_of_whole_experiments():
    draws, n = rng(8), 600
    found = 0
    for _ in range(n):
        a, b = simulated(draws, 7, 2, 0.015, 0.01, difference=0.02)
        means = a.trainings().mean(1) - b.trainings().mean(1)
        found += resampling.sign_flip(means, rng=draws) <= 0.05
    found_power = power.power(0.02, power.Spread(0.015, 0.01), seeds=7, trainings=2, rng=rng())
    assert found_power == pytest.approx(found / n, abs=0.07)  # three standard errors
    assert 0.5 < found_power < 0.95


@pytest.mark.parametrize("n", [3, 8])
def test_flips_side_by_side_are_those_of_scipy(n):
    values = rng(9).integers(-3, 4, size=(20, n)).astype(float)  # with ties
    found = power._sign_flips(values, rng())
    np.testing.assert_allclose(found, [resampling.sign_flip(v, rng=rng()) for v in values])


def test_seeds_needed():
    """The normal formula, 8 (deviation / difference)^2 + 2, is near."""
    spread = power.Spread(0.015, 0.0)
    assert power.seeds_needed(0.01, spread, trainings=2, rng=rng()) in range(17, 24)
    assert power.seeds_needed(0.02, spread, trainings=2, rng=rng()) in (7, 8)
    assert power.seeds_needed(0.3, spread, trainings=2, rng=rng()) == 6  # the test's own limit
    noisy = power.Spread(0.005, 0.04)
    few, many = (power.seeds_needed(0.03, noisy, trainings=r, rng=rng()) for r in (1, 8))
    assert many < few
    assert power.seeds_needed(0.001, spread, trainings=2, rng=rng(), most=8) is None
    with pytest.raises(InputError, match="one training"):
        power.power(0.01, spread, seeds=4, trainings=0, rng=rng())


# scores of DD-Ranking


def test_scores_by_hand():
    assert scores.hlr(0.9, 0.6) == pytest.approx(0.3) and scores.ior(0.6, 0.4) == pytest.approx(0.2)
    assert scores.lrs(0, 0) == pytest.approx(0.26894, abs=1e-5) == scores.ars(0, 0)
    assert scores.lrs(-1, 1) == pytest.approx(1) and scores.lrs(1, -1) == pytest.approx(0)
    # (e^-0.05 - e^-1) / (e - e^-1) with -0.05 = (0.2 - 0.3) / 2
    assert scores.lrs(0.3, 0.2) == pytest.approx((0.951229 - 0.367879) / 2.350402, abs=1e-6)
    assert scores.lrs(0.3, 0.2, weight=1) == scores.ars(0.2, 0.9, weight=1)
    # (e^0.15 - e^-1) / (e - e^-1) with 0.15 = (0.2 + 0.1) / 2
    assert scores.ars(0.2, 0.1) == pytest.approx((1.161834 - 0.367879) / 2.350402, abs=1e-6)


def test_scores_refuse_per_cent():
    for call in (lambda: scores.hlr(90, 60), lambda: scores.ior(0.6, math.nan)):
        with pytest.raises(InputError, match="not per cent"):
            call()
    for call in (lambda: scores.lrs(30, 0.2), lambda: scores.ars(0.2, math.nan)):
        with pytest.raises(InputError, match="not per cent"):
            call()
    with pytest.raises(InputError, match="weight"):
        scores.lrs(0.3, 0.2, weight=2)

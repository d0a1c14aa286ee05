"""The questions that were fixed beforehand, and the grids that answer them."""

from dataclasses import replace

import pytest

from ld3m_min.experiments import grids, questions
from ld3m_min.experiments.power import Spread, power
from ld3m_min.experiments.rate_search import FIRST_SEED
from ld3m_min.experiments.resampling import holm
from ld3m_min.experiments.sweep import sweep
from tests.experiments.test_statistics import rng

ASKED = questions.PRIMARY | questions.SECONDARY


def test_the_evidence_holds_both_sides_of_every_question_in_all_seeds():
    planned = {cell for name in grids.MEASURED for cell in grids.grid(name)}
    for name, q in ASKED.items():
        assert q.ours != q.theirs, name
        for side in (q.ours, q.theirs):
            assert {replace(side, seed=s) for s in range(questions.SEEDS)} <= planned, name


def test_no_more_is_asked_than_so_many_seeds_can_answer():
    least = 2 / 2**questions.SEEDS
    assert len(questions.SECONDARY) == questions.MOST_SECONDARY
    assert holm([least, *[0.9] * (questions.MOST_SECONDARY - 1)])[0] < 0.05
    assert holm([least, *[0.9] * questions.MOST_SECONDARY])[0] > 0.05
    # all flips of one sign have that value: nothing smaller is possible
    assert (
        power(1.0, Spread(0.001, 0.0), seeds=questions.SEEDS, trainings=2, level=least, rng=rng(0))
        == 1
    )
    assert power(1.0, Spread(0.001, 0.0), seeds=7, trainings=2, level=least, rng=rng(0)) == 0


def test_pilot_evidence_and_rate_search_have_no_seed_in_common():
    pilot = grids.grid("pilot")
    assert tuple(dict.fromkeys(c.seed for c in pilot)) == questions.PILOT_SEEDS
    assert {replace(c, seed=0) for c in pilot} == {
        cell for q in questions.PRIMARY.values() for cell in (q.ours, q.theirs)
    }
    at = grids.records_folder("pilot")
    assert at.parent == grids.RECORDS == grids.records_folder("evidence")
    assert (
        not grids.missing("pilot", at) and not sweep("pilot").jobs
    )  # made, where none counts them
    assert grids.missing("pilot", grids.RECORDS) == pilot
    assert questions.SEEDS <= min(questions.PILOT_SEEDS) <= max(questions.PILOT_SEEDS) < FIRST_SEED


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (-0.004, 0.009, 0.9, "no difference that matters"),
        (0.001, 0.009, 0.001, "no difference that matters"),  # small, however certain
        (-0.004, 0.02, 0.001, "not known"),
        (0.004, 0.02, 0.06, "not known"),  # the corrected p doesn't hold
        (0.004, 0.02, 0.04, "better"),
        (-0.02, -0.004, 0.04, "worse"),
    ],
)
def test_an_interval_and_a_p_value_say_one_of_four_things(low, high, p, said):
    assert questions.verdict(low, high, p) == said

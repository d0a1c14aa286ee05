"""The tables of names agree: what a configuration may say is what there is."""

from typing import get_args

from ld3m_min.config import ALGORITHMS, ARCHITECTURES, VALIDATORS, Architecture
from ld3m_min.config import SPACES as NAMED
from ld3m_min.distillers import DISTILLERS
from ld3m_min.networks import NETWORKS
from ld3m_min.spaces.build import SPACES


def test_spaces():
    assert list(SPACES) == list(NAMED)


def test_distillers_and_networks():
    assert list(DISTILLERS) == list(ALGORITHMS) and list(get_args(Architecture)) == list(NETWORKS)
    assert {*ARCHITECTURES, *VALIDATORS} == set(NETWORKS)
    assert not {*VALIDATORS} & {*ARCHITECTURES[1:]}, "an unseen network takes part in a choice"

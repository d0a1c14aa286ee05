"""The tables of names agree: what a configuration may say is what there is."""

from ld3m_min.config import ALGORITHMS, ARCHITECTURES
from ld3m_min.config import SPACES as NAMED
from ld3m_min.distillers import DISTILLERS
from ld3m_min.networks import NETWORKS
from ld3m_min.spaces.build import SPACES


def test_spaces():
    assert list(SPACES) == list(NAMED)


def test_distillers_and_networks():
    assert list(DISTILLERS) == list(ALGORITHMS) and set(ARCHITECTURES) == set(NETWORKS)

"""Classes of the data find their rows in a prior by name."""

from types import SimpleNamespace

import pytest
import torch

from ld3m_min.prior.class_matching import match_classes


def prior(classes=(), rows=None, null=True):
    n = (len(classes) if rows is None else rows) + null
    return SimpleNamespace(
        classes=tuple(classes), has_null=null, class_embedding=torch.nn.Embedding(n, 2)
    )


def data(*classes, ids=()):
    return SimpleNamespace(classes=classes, ids=tuple(ids))


@pytest.mark.parametrize(
    "known, names, rows",
    [
        (("ant", "bee", "cat"), ("cat", "ant", "bee"), (2, 0, 1)),
        (("ant", "bee", "cat", "dog"), ("bee", "dog"), (1, 3)),
        (("tench, Tinca tinca", "French horn, horn"), ("french_horn", "Tench"), (1, 0)),
        (("cafe\u0301", "tea"), ("tea", "CAF\u00c9"), (1, 0)),
        (("crane", "crane, machine"), ("crane", "machine"), (0, 1)),
    ],
)
def test_by_name_whatever_the_order_case_or_spelling(known, names, rows):
    found = match_classes(prior(known), data(*names))
    assert (found.rows, found.by) == (rows, "name") and found.record == {
        "by": "name",
        "rows": list(rows),
    }
    assert all(repr(n) in found.table() for n in names)


def test_by_imagenet_id_where_there_are_no_names():
    assert match_classes(prior(rows=1000), data("tench", "church", ids=(0, 497))).rows == (0, 497)
    assert match_classes(prior(rows=1000), data("tench", "church", ids=(0, 497))).by == "id"


def test_by_position_with_a_warning():
    with pytest.warns(UserWarning, match="doesn't say which classes it knows"):
        assert match_classes(prior(rows=3), data("a", "b")).rows == (0, 1)
    with pytest.warns(UserWarning, match="knows other classes"):
        found = match_classes(prior(("0", "1", "2")), data("a", "b"))
    assert (found.rows, found.by, found.known) == ((0, 1), "position", ("0", "1"))


@pytest.mark.parametrize(
    "known, names, message",
    [
        (("ant", "bee"), ("ant", "wasp"), "but not wasp; it knows ant, bee"),
        (("crane, bird", "crane, machine"), ("crane", "machine"), "the name of several classes"),
        (("tench, fish", "bee"), ("tench", "fish"), "one and the same class"),
        (("0",), ("a", "b"), "the data has 2 classes, the prior only 1"),
    ],
)
def test_what_cannot_be_matched_is_refused(known, names, message):
    with pytest.raises(ValueError, match=message):
        match_classes(prior(known), data(*names))


def test_the_null_row_is_no_class():
    with pytest.raises(ValueError, match="the prior only 2"):
        match_classes(prior(rows=2), data("a", "b", "c"))
    with pytest.warns(UserWarning):
        assert match_classes(prior(rows=3, null=False), data("a", "b", "c")).rows == (0, 1, 2)

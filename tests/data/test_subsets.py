"""The ten subsets against themselves, the paper's table 5 and independent lists."""

import csv
import re
from pathlib import Path

import pytest

from ld3m_min.data.subsets import CLASSES, PRINTED, SUBSETS, subset

PAPER = Path(__file__).parents[2] / "book" / "_data" / "paper"


def rows(number):
    with open(PAPER / f"table{number}.csv", encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def plain(name):
    return re.sub(r"[^a-z]", "", name.lower())


def test_the_ten_of_the_paper_in_its_order():
    titles = list(dict.fromkeys(r["subset"] for r in rows(5)))
    assert (
        [s.title for s in SUBSETS.values()]
        == titles
        == list(dict.fromkeys(r["subset"] for r in rows(1)))
    )


@pytest.mark.parametrize("s", SUBSETS.values(), ids=SUBSETS)
def test_ten_different_classes_in_label_order_named_as_printed(s):
    assert len(set(s.ids)) == len(set(s.wnids)) == len(set(s.classes)) == 10
    printed = [r["printed"] for r in rows(5) if r["subset"] == s.title]
    for i, name, ours in zip(s.ids, printed, s.classes, strict=True):
        expected = PRINTED[i][0] if i in PRINTED else ours
        assert plain(name) == plain(expected), (i, name, ours)


def test_an_id_is_the_position_of_the_wnid_in_alphabetical_order():
    ids, wnids = list(CLASSES), [w for w, _ in CLASSES.values()]
    assert ids == sorted(set(ids)) and wnids == sorted(set(wnids))
    assert all(re.fullmatch(r"n\d{8}", w) for w in wnids) and min(ids) >= 0 and max(ids) < 1000
    assert set(ids) == {i for s in SUBSETS.values() for i in s.ids}  # what is needed and no more


def test_every_difference_from_the_printed_name_is_a_real_one():
    assert set(PRINTED) <= set(CLASSES)
    assert all(
        plain(printed) != plain(CLASSES[i][1]) and why for i, (printed, why) in PRINTED.items()
    )


def test_wnids_of_imagenette_and_imagewoof_are_those_that_fastai_published():
    assert SUBSETS["imagenette"].wnids == (
        "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
        "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
    )  # fmt: skip
    assert set(SUBSETS["imagewoof"].wnids) == {
        "n02086240", "n02087394", "n02088364", "n02089973", "n02093754",
        "n02096294", "n02099601", "n02105641", "n02111889", "n02115641",
    }  # fmt: skip


def test_classes_that_two_subsets_share():
    shared = {i for i in CLASSES if sum(i in s.ids for s in SUBSETS.values()) > 1}
    assert {CLASSES[i][1] for i in shared} == {
        "ostrich",
        "toucan",
        "black swan",
        "king penguin",
        "lion",
        "Samoyed",
    }


def test_by_name_or_title():
    assert subset("imagenet-a") is subset("ImageNet-A") is SUBSETS["imagenet-a"]
    with pytest.raises(ValueError, match=r"'imagenet-f'.*imagenet-a.*imagenet-cats"):
        subset("imagenet-f")

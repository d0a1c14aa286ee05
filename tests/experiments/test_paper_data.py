"""The paper's tables, copied as printed: complete, plausible, and what the paper's text says of
them.

Two statements of the paper do not follow from its own printed tables; both are pinned here (see the
book's page on differences): the column "All" of table 4, and the 4.8 percentage points of the
abstract.
"""

import csv
import itertools
from math import hypot, log
from pathlib import Path

import pytest
from scipy.stats import linregress

DATA = Path(__file__).parents[2] / "book" / "_data" / "paper"
ROUNDING = 0.051  # a mean of printed numbers may differ from the printed mean by half a digit


def read(number):
    with open(DATA / f"table{number}.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {r["table"] for r in rows} == {str(number)}
    return rows


def means(number, *keys):
    """Printed mean by the columns `keys`; every key occurs once."""
    rows = read(number)
    found = {tuple(r[k] for k in keys): float(r["mean"]) for r in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def table1():
    return means(1, "space", "algorithm", "subset")


SUBSETS = list(dict.fromkeys(r["subset"] for r in read(1)))
A_TO_E = SUBSETS[:5]


@pytest.mark.parametrize(
    ("number", "count"), [(1, 3 * 3 * 10), (2, 3 * 2 * 6), (3, 7 * 6), (4, 4 * 5)]
)
def test_every_cell_is_there(number, count):
    rows = read(number)
    assert len(rows) == count
    assert all(10 < float(r["mean"]) < 60 and 0 < float(r["std"]) < 10 for r in rows)


def test_classes_of_the_subsets():
    rows = read(5)
    assert list(dict.fromkeys(r["subset"] for r in rows)) == SUBSETS
    for subset in SUBSETS:
        assert [int(r["label"]) for r in rows if r["subset"] == subset] == list(range(10))
        assert len({r["printed"] for r in rows if r["subset"] == subset}) == 10


@pytest.mark.parametrize("number", [2, 3])
def test_all_is_the_mean_of_the_five_subsets(number):
    found = means(number, "space", "algorithm", "subset")
    for space, algorithm in {k[:2] for k in found}:
        mean = sum(found[space, algorithm, s] for s in A_TO_E) / 5
        assert found[space, algorithm, "All"] == pytest.approx(mean, abs=ROUNDING)


def test_all_of_table_4_is_the_mean_of_its_networks_for_glad_only():
    found = means(4, "method", "network")
    agrees = {}
    for method in dict.fromkeys(k[0] for k in found):
        mean = sum(v for (m, n), v in found.items() if m == method and n != "All") / 4
        agrees[method] = abs(found[method, "All"] - mean) <= ROUNDING
    assert list(agrees.values()) == [True, False, False, False]


def test_ld3m_has_the_best_number_in_nine_of_ten_subsets(table1):
    best = {s: max((k for k in table1 if k[2] == s), key=table1.get)[0] for s in SUBSETS}
    assert [s for s in SUBSETS if best[s] != "LD3M"] == ["ImageNet-B"]


@pytest.mark.parametrize(
    ("algorithm", "exceptions"), [("MTT", ["ImageNet-C"]), ("DC", ["ImageNet-B"]), ("DM", [])]
)
def test_ld3m_beats_glad_but_for_the_exceptions_that_the_paper_names(table1, algorithm, exceptions):
    assert [
        s for s in SUBSETS if table1["LD3M", algorithm, s] <= table1["GLaD", algorithm, s]
    ] == exceptions


def test_the_abstracts_gains():
    """4.2 points at ten images per class hold.

    For one image the rounded table gives 4.9, the abstract says 4.8.
    """
    gains = {}
    for number in (1, 2):
        found = means(number, "space", "algorithm", "subset")
        gains[number] = max(
            round(found["LD3M", a, s] - found["GLaD", a, s], 1)
            for a, s in itertools.product(("MTT", "DC", "DM"), SUBSETS)
            if ("LD3M", a, s) in found
        )
    assert gains == {1: 4.9, 2: 4.2}


def test_glads_line_in_figure_4_is_its_mean_in_table_1(table1):
    assert sum(table1["GLaD", "MTT", s] for s in A_TO_E) / 5 == pytest.approx(34.72)


def test_ld3m_holds_the_three_best_numbers_of_each_subset_in_table_3():
    found = means(3, "space", "subset")
    for subset in A_TO_E:
        ranked = sorted((v for (_, s), v in found.items() if s == subset), reverse=True)
        ours = sorted(
            (v for (p, s), v in found.items() if s == subset and p.startswith("LD3M")), reverse=True
        )
        assert ranked[:3] == ours


# what the book's page "The paper's four tables, read again" says in prose


def cells(number, *keys):
    """Printed mean and deviation by the columns `keys`."""
    return {tuple(r[k] for k in keys): (float(r["mean"]), float(r["std"])) for r in read(number)}


def gain(found, one, other):
    """The difference of two cells, in points and in deviations of the difference."""
    (a, s), (b, r) = found[one], found[other]
    return round(a - b, 1), round(a - b, 1) / hypot(s, r)


def test_how_many_gains_over_glad_stand_clear():
    found = cells(1, "space", "algorithm", "subset")
    gains = {
        (a, s): gain(found, ("LD3M", a, s), ("GLaD", a, s))
        for a, s in itertools.product(("DC", "DM", "MTT"), SUBSETS)
    }
    assert sum(abs(z) <= 1 for _, z in gains.values()) == 16
    clear = [a for (a, _), (_, z) in gains.items() if abs(z) > 2]
    assert clear == ["DM"] * 7
    means = {a: sum(g for (b, _), (g, _) in gains.items() if a == b) / 10 for a in ("DC", "DM")}
    assert means == {"DC": pytest.approx(1.04), "DM": pytest.approx(3.53)}


def test_only_the_abstracts_cell_of_table_2_is_beyond_two_deviations():
    found = cells(2, "space", "algorithm", "subset")
    clear = [
        (a, s)
        for a, s in itertools.product(("DC", "DM"), A_TO_E)
        if abs(gain(found, ("LD3M", a, s), ("GLaD", a, s))[1]) > 2
    ]
    assert clear == [("DM", "ImageNet-A")]


@pytest.mark.parametrize("number", [2, 3])
def test_the_deviation_of_all_is_the_mean_of_the_five_deviations(number):
    found = cells(number, "space", "algorithm", "subset")
    for space, algorithm in {k[:2] for k in found}:
        mean = sum(found[space, algorithm, s][1] for s in A_TO_E) / 5
        assert found[space, algorithm, "All"][1] == pytest.approx(mean, abs=ROUNDING)


def test_every_kind_of_prior_is_within_one_deviation_in_table_3():
    found = cells(3, "space", "subset")
    for method, kind, subset in itertools.product(("GLaD", "LD3M"), ("Random", "FFHQ"), A_TO_E):
        trained, other = (f"{method} (ImageNet)", subset), (f"{method} ({kind})", subset)
        assert abs(gain(found, trained, other)[1]) < 1


def test_the_gain_over_glad_in_table_4_is_the_vits_and_the_residuals_is_everybodys():
    found = cells(4, "method", "network")
    networks = ("AlexNet", "VGG-11", "ResNet-18", "ViT")
    full, part = "LDM, c and z_T learned, equation 6", "LDM, c and z_T learned"
    over_glad = [gain(found, (full, n), ("GLaD", n))[0] for n in networks]
    assert over_glad == [0.5, 0.0, -0.2, 7.3]
    assert all(gain(found, (full, n), (part, n))[1] > 1 for n in networks)


def test_the_norms_of_version_4_are_a_power_law():
    with open(DATA / "v4_table1.csv", encoding="utf-8", newline="") as f:
        rows = [(float(r["T"]), float(r["norm"])) for r in csv.DictReader(f)]
    T, norm = zip(*rows, strict=True)
    assert list(T) == list(range(10, 100, 10)) and norm[0] / norm[-1] == pytest.approx(8.9, abs=0.1)
    power = linregress([log(t) for t in T], [log(n) for n in norm])
    exponential = linregress(T, [log(n) for n in norm])
    assert power.slope == pytest.approx(-0.94, abs=0.005)
    assert power.rvalue**2 == pytest.approx(0.985, abs=0.001)
    assert exponential.rvalue**2 == pytest.approx(0.921, abs=0.001)


def test_version_4_with_diffusion_has_the_number_of_the_random_prior():
    with open(DATA / "v4_table6.csv", encoding="utf-8", newline="") as f:
        found = {r["system"]: float(r["mean"]) for r in csv.DictReader(f)}
    three = cells(3, "space", "subset")
    assert found["with diffusion"] == three["LD3M (Random)", "All"][0]
    assert found["with diffusion"] != three["LD3M (ImageNet)", "All"][0]
    assert found["with diffusion"] - found["without diffusion"] == pytest.approx(1.2)

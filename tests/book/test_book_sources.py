"""The book's sources name what there is.

Every module has its reference, every test and notebook named exists.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from ld3m_min.commands import COMMANDS
from ld3m_min.experiments import real_images
from ld3m_min.experiments.results import Results
from ld3m_min.storage import Storage

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
PAGES = sorted(p for p in BOOK.rglob("*.md") if not {"_assets", "_data"} & set(p.parts))


def modules():
    """Dotted names of the package's modules, without the package itself."""
    for path in sorted((ROOT / "ld3m_min").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "ld3m_min":
            yield name


def test_every_module_is_in_the_reference():
    pages = (BOOK / "reference" / "api").glob("*.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert sorted(re.findall(r"automodule:: (\S+)", text)) == sorted(modules())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(?:tests/)?(test_\w+\.py)`", text)
    paths = [ROOT / "tests" / n for n in named]
    paths += [
        ROOT / n for n in re.findall(r"`((?:book|notebooks|tools|tests)/[\w./-]+\.\w+)`", text)
    ]
    assert not [str(p.relative_to(ROOT)) for p in paths if not p.is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_number_of_the_paper_is_not_typed_as_ours(page):
    """Accuracies with an interval are ours, and only a cell that reads a record may print one."""
    text = re.sub(r"```\{code-cell\}.*?\n```", "", page.read_text(encoding="utf-8"), flags=re.S)
    assert not re.findall(r"\d+\.\d+ ?%? \(\d+\.\d+ to \d+\.\d+\)", text)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_first_pages_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"\]\((?!https?:|#)([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    assert named and not [n for n in named if not (ROOT / n).exists()]


def test_commands_of_the_readme_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{t}:" in make for t in re.findall(r"\bmake (\w[\w-]*)", text) if t != "make")
    assert set(re.findall(r"python -m ld3m_min ([\w-]+)", text)) <= set(COMMANDS)


def test_the_readme_shows_what_the_records_say_ten_images_are_worth():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        tool = importlib.import_module("make_readme_figure")
    finally:
        sys.path.pop(0)
    found = Results("digits", "evidence")
    with Image.open(tool.FILE) as picture:
        assert picture.text["Description"] == tool.described(found), (
            "the records have changed: python tools/make_readme_figure.py"
        )
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = re.search(
        r"\*\*(\d+\.\d)\*\* random real images of each class.*"
        r"autoencoder alone are worth (\d+\.\d), and learned pixels (\d+\.\d)\. "
        r"Those of equation \(6\) are worth (\d+\.\d), less than the mean image of each class, "
        r"for which nothing is learned and which is worth (\d+\.\d)",
        text,
    )
    systems = ("ld3m-code", "autoencoder", "pixel", "ld3m-paper")
    cells = [found.cell(s, "DM") for s in systems] + [found.cell("class-mean", "none")]
    worth = [found.worth(c).split()[0] for c in cells]
    assert said and list(said.groups()) == worth and worth[3] < worth[4]
    low, high = re.findall(r"\d+\.\d", found.worth(cells[0]))[1:]
    assert f"(95 % interval {low} to {high})" in text
    small = [found.runs[found.cell(s, "DM")] for s in ("ddif", "fred")]
    read = " and ".join(f"{100 * runs.trainings().mean():.0f} %" for runs in small)
    sets = "one set each so far" if {len(runs.seeds) for runs in small} == {1} else "sets each"
    assert f"Networks read {read} with them (" in text and sets in text
    digit, field = (
        Storage(**found.of(found.cell(*c))[0]["bytes"]).smallest.per_class
        for c in (("random", "none"), ("ddif", "DM"))
    )
    fit = field / digit
    assert f"in the same bytes {fit:.0f} real digits of each class fit" in text
    taught = real_images.accuracy_at(found.real, fit)
    assert abs(taught - small[0].trainings().mean()) < 0.005, "and teach as much"


def test_the_readme_says_what_a_random_prior_teaches():
    found = Results("digits", "evidence")
    variants = ("random-prior-true", "random-prior-all")
    runs = [found.runs[found.cell("ld3m-code", "DM", variant=v)] for v in variants]
    drawn, all_drawn = (f"{100 * r.trainings().mean():.0f} %" for r in runs)
    sets = "(one set each so far)" if {len(r.seeds) for r in runs} == {1} else "sets each)"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"the set teaches {drawn}, too, and with a random decoder as well {all_drawn} " in text
    assert sets in text


def test_the_first_sentences_say_what_the_records_say():
    found = Results("digits", "evidence")
    ten = found.runs[found.cell("ld3m-code", "DM")].trainings()
    real = real_images.curve(found.real)
    numbers = [f"{100 * x.mean():.0f}" for x in (real[0], real[1], ten)]
    for page in (ROOT / "README.md", ROOT / "book" / "intro.md"):
        said = re.search(
            r"read (\d+) of 100 digits.* teach them to read (\d+)\. .* teach them to read (\d+)\.",
            page.read_text(encoding="utf-8"),
        )
        assert said and list(said.groups()) == numbers, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_code_of_a_page_can_be_compiled(page):
    """Found here in a second, and not by the build after minutes."""
    cells = re.findall(
        r"^(`{3,})\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::[^\n]*\n)*)(.*?)^\1$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    for _, code in cells:
        compile(re.sub(r"^%.*$", "pass", code, flags=re.MULTILINE), page.name, "exec")


def test_each_cell_that_draws_says_what_it_shows():
    """Else the text of its picture is the name of a file."""
    cell = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.M | re.S)
    draws = re.compile(r"plt\.show\(\)|^strip\(|figures\.strips\(", re.M)
    without = [
        f"{page.name}: {source[:80]!r}"
        for page in sorted(BOOK.rglob("*.md"))
        for source in cell.findall(page.read_text(encoding="utf-8"))
        if draws.search(source) and "tags: [remove-cell]" not in source and "alt:" not in source
    ]
    assert not without

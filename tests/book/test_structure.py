"""Every page of the story is built alike.

What it is about, a question, what to take away, exercises, what comes next.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
MOVED = {"book/background/22_live"}  # its measurements are the reader's own
FIRST = {TOC["root"]}


def files(node):
    """Every `file:` below an entry of the table of contents, in order."""
    if isinstance(node, dict):
        yield from ([node["file"]] if "file" in node else [])
        for value in node.values():
            yield from files(value)
    elif isinstance(node, list):
        for value in node:
            yield from files(value)


STORY = [f for part in TOC["parts"] if part.get("numbered") for f in files(part["chapters"])]
PAGES = [f for f in STORY if f.startswith("book/")]


def text(page):
    return (ROOT / f"{page}.md").read_text(encoding="utf-8")


def test_the_story_has_five_parts():
    captions = [part["caption"] for part in TOC["parts"]]
    assert [c.split()[0] for c in captions[:5]] == ["I", "II", "III", "IV", "V"]
    assert captions[5:] == ["Appendices"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_where_in_the_paper_it_is(page):
    assert re.search(r"```\{margin\}\n(The paper: |Ours: )", text(page))


@pytest.mark.parametrize("page", sorted({*PAGES} | FIRST))
def test_a_page_opens_with_a_question(page):
    body = text(page).split("\n# ", 1)[-1]
    title, rest = body.split("\n", 1)
    opening = next(p for p in rest.split("\n\n") if p and not p.startswith(("```", "(", "\n```")))
    assert "?" in title + opening
    assert re.search(r"[Aa]fter (this page|it) you", rest)


@pytest.mark.parametrize("page", sorted({*PAGES} | FIRST))
def test_a_page_ends_with_what_to_take_away(page):
    said = text(page)
    take = said.split("## Take away\n", 1)[1].split("\n## ", 1)[0]
    points = re.findall(r"^(?:- |\d\. )", take, re.M)
    assert len(points) == 3
    exercises = said.split("## Exercises\n", 1)[1]
    numbers = re.findall(
        r"^(?:\d\. |```\{admonition\} \d\. )", exercises.split("Solution")[0], re.M
    )
    assert 2 <= len(numbers) <= 4
    assert re.search(r":class: dropdown|hide-cell", exercises)


@pytest.mark.parametrize("page", sorted({*PAGES} | FIRST))
def test_a_page_says_what_comes_next(page):
    assert re.search(r"\*\*Next:?\*\*", text(page))


@pytest.mark.parametrize("page", sorted((ROOT / "book").rglob("*.md")), ids=lambda p: p.stem)
def test_code_that_is_shown_needs_no_scrolling(page):
    """80 characters are what a window of 1440 px shows, beside the contents and the margin."""
    said = page.read_text(encoding="utf-8")
    for kind, body in re.findall(r"```\{?([\w-]+)\}?[^\n]*\n(.*?)```", said, re.S):
        if kind in ("code-cell", "sh", "python") and not re.search(r"remove-(input|cell)", body):
            code = re.sub(r"\A---\n.*?^---\n", "", body, flags=re.S | re.M)
            assert not [line for line in code.splitlines() if len(line) > 80]


def test_nothing_of_the_paper_is_without_a_page():
    """The paper map has each section, equation, table and figure once, and each has a page."""
    parts = re.split(r"^## ", text("book/start/paper_map"), flags=re.M)
    rows = {
        part.split("\n", 1)[0]: re.findall(r"^\* - (.+)\n  - (.+)", part, re.M) for part in parts
    }

    def numbers(part):
        """Of a part's rows, without "Paper"; "6–8" and "(1)–(3)" are three each."""
        for key, _ in rows[part][1:]:
            first, last = re.match(r"\(?(\d+)\)?(?:–\(?(\d+)\)?)?", key).groups()
            yield from range(int(first), int(last or first) + 1)

    assert list(numbers("Equations")) == list(range(1, 9))
    assert list(numbers("Tables")) == list(range(1, 6))
    assert list(numbers("Figures")) == list(range(1, 16))
    sections = [key.split()[0] for key, _ in rows["Sections"][1:]]
    assert sections == [
        "Abstract,", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "4.1", "4.2", "5", "6", "7",
        "Supplement:",
    ]  # fmt: skip
    without = [key for part in rows.values() for key, page in part[1:] if "](" not in page]
    assert not [key for key in without if key != "1 Overview"], without


def test_every_page_of_the_story_is_on_the_paper_map_or_is_ours():
    """A new page is noticed: what follows the paper stands on its map."""
    said = text("book/start/paper_map")
    ours = {"book/background/22_live", "book/experiments/speed"}
    missing = [p for p in PAGES if p not in ours and Path(p).name not in said]
    assert not missing


@pytest.mark.parametrize("page", sorted({*PAGES} - MOVED))
def test_a_prediction_is_asked_and_answered_out_of_sight(page):
    body, exercises = text(page).split("## Exercises\n", 1)
    asked = len(re.findall(r"\{admonition\} (?:Predict|Before you)", body))
    folded = re.findall(r":class: [^\n]*dropdown|^tags: [^\n]*hide-(?:output|cell)", body, re.M)
    assert 1 <= asked <= len(folded)
    assert "hide-cell" in exercises, "a solution is executed"
    for question in re.finditer(r"\{admonition\} Predict", body):
        cell = re.search(r"^```\{code-cell\}.*?^```$", body[question.end() :], re.M | re.S)
        shown = "" if cell is None else cell[0]
        # what answers it is seen by who asks for it; other words may come before
        folded = re.search(r"^tags: .*hide-(?:output|cell)", shown, re.M)
        assert (
            folded
            or "Answer" in shown
            or not re.search(r"table\(|plt\.show", shown)
            or page
            in (
                "book/background/23_glad",  # samples of its generator come first
            )
        ), shown[:200]

"""Every page of the story is built alike.

What it is about, a question, what to take away, exercises, what comes next.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
# what is looked up, or moved, rather than read
LOOKED_UP = {"book/start/how_to_run", "book/background/22_live"}


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
    if page != "book/start/how_to_run":
        assert re.search(r"```\{margin\}\n(The paper: |Ours: )", text(page))


@pytest.mark.parametrize("page", sorted({*PAGES} - LOOKED_UP))
def test_a_page_opens_with_a_question(page):
    body = text(page).split("\n# ", 1)[-1]
    title, rest = body.split("\n", 1)
    opening = next(p for p in rest.split("\n\n") if p and not p.startswith(("```", "(", "\n```")))
    assert "?" in title + opening
    assert re.search(r"[Aa]fter (this page|it) you", rest)


@pytest.mark.parametrize("page", sorted({*PAGES} - LOOKED_UP))
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


@pytest.mark.parametrize("page", sorted({*PAGES} - LOOKED_UP))
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

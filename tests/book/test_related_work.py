"""The page on related work has every system, and the lines of code that it shows are there."""

import importlib
import inspect
import re
from operator import attrgetter
from pathlib import Path

import pytest

from ld3m_min.systems import SYSTEMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "beyond" / "related_work.md").read_text(encoding="utf-8")
EXCERPTS = re.findall(r"```\{literalinclude\} \.\./\.\./(\S+)\n(.*?)```", PAGE, flags=re.S)


def test_every_system_is_shown_once():
    shown = re.findall(r'^show\("([\w-]+)"\)$', PAGE, flags=re.M)
    assert sorted(shown) == sorted(SYSTEMS)


@pytest.mark.parametrize(("path", "options"), EXCERPTS, ids=lambda text: text.split("\n")[0])
def test_an_excerpt_is_found(path, options):
    """Its object is there, with a line that it starts at and a later one that it ends at."""
    named = dict(re.findall(r"^:([\w-]+): (.*)$", options, flags=re.M))
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    lines = inspect.getsource(attrgetter(named["pyobject"])(module)).split("\n")
    first = named.get("start-at", "")
    start = next((i for i, line in enumerate(lines) if first in line), None)
    assert start is not None, f"no line has {first!r}"
    assert any(named.get("end-at", "") in line for line in lines[start:])
    assert named["caption"] == f"`{named['pyobject']}` in `{path}`"

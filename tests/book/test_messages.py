"""The troubleshooting page has every message of the package, and no message that there isn't."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TABLE = "book/_data/messages.yml"
# the last three are in the page's table of exit codes
SILENT = ("AttributeError", "KeyboardInterrupt", "Interrupted", "SystemExit")


def said(node):
    """The text of a message with "…" for what changes.

    A call gives the texts among its arguments.
    """
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(said(v) for v in node.values)
    if isinstance(node, ast.BinOp):
        return said(node.left) + said(node.right)
    if isinstance(node, ast.Call):
        return " ".join(said(a) for a in node.args)
    return "…"


@cache
def messages():
    """(module, line, text) of every `raise` with a message, and every warning."""
    return tuple(_messages())


def _messages():
    for file in sorted((ROOT / "ld3m_min").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT / "ld3m_min").with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = ast.unparse(call.func)
            if (isinstance(node, ast.Raise) and name not in SILENT) or name == "warnings.warn":
                yield module, call.lineno, said(call.args[0])


@cache
def entries():
    """(module, text, cause, remedy) of every line of the table."""
    table = yaml.safe_load((ROOT / TABLE).read_text(encoding="utf-8"))
    return tuple((module, *row) for module, rows in table.items() for row in rows)


def test_there_are_messages():
    assert len(messages()) > 150 and len({m for m, *_ in messages()}) > 15


@pytest.mark.parametrize("module", sorted({m for m, *_ in messages()}))
def test_every_message_is_explained(module):
    known = [says for m, says, *_ in entries() if m == module]
    missing = [
        f"{module}.py:{line}: {text}"
        for m, line, text in messages()
        if m == module and not any(k in text for k in known)
    ]
    assert not missing, (
        f"add a line to {TABLE}, below {module!r}, for each of these: - [part of the message that "
        "stays, with … for what changes; cause; remedy]\n" + "\n".join(missing)
    )


def test_no_entry_is_stale():
    texts = {}
    for module, _, text in messages():
        texts.setdefault(module, []).append(text)
    stale = [
        f"{m}: {says}" for m, says, *_ in entries() if not any(says in t for t in texts.get(m, []))
    ]
    assert not stale, f"{TABLE} explains what no longer exists; change or remove:\n" + "\n".join(
        stale
    )


def test_entries_are_whole():
    rows = entries()
    assert all(all(isinstance(part, str) and part.strip() for part in row) for row in rows)
    assert len({row[:2] for row in rows}) == len(rows)

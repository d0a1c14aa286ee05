"""Explorers: pictures and curves that a reader moves in the built book, without a kernel.

    ```{explorer} residual
    :question: What does the reader predict before moving anything?
    :alt: What the still picture shows.
    :height: 430 640

    The same as text: sentences or a table.
    ```

The directive leaves a container, a still picture (for print and where no script runs) and the text.
Scripts and style go to the pages that have an explorer, and to no other. The data of the explorer
"table" are the records, read when the book is built.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from explorer_records import still, table_data
from sphinx.util.docutils import SphinxDirective

FOLDER = "explorers"  # below _static
# explorer -> its scripts after explorer.js, in the order in which they run
SCRIPTS = {
    "growth": ("growth.data.js", "growth.js"),
    "residual": ("residual.data.js", "residual.js"),
    "survive": ("survive.data.js", "survive.js"),
    "grid": ("grid.data.js", "grid.js"),
    "losses": ("losses.data.js", "losses.js"),
    "table": ("table.data.js", "table.js"),
    "planner": ("planner.data.js", "planner.js"),
    "live": ("live.data.js", "residual.js", "live.js"),
}


class ExplorerNode(nodes.General, nodes.Element):
    """The container; its children are the text."""


def opening(name: str, question: str, alt: str, heights: Iterable[int], root: str) -> str:
    """The container as HTML, up to its text.

    Args:
        name: of the explorer.
        question: that the reader is asked.
        alt: what the still picture shows.
        heights: that the moving part will have, in pixels: on a desk, on a phone.
        root: relative address of the book's first page.
    """
    desk, phone = heights
    asked, shown = html.escape(question), html.escape(alt)
    return (
        f'<div class="explorer" data-explorer="{name}" role="group" aria-label="Explorer: {name}" '
        f'style="--explorer-desk:{desk}px;--explorer-phone:{phone}px">\n'
        f'<p class="explorer-question">{asked}</p>\n'
        '<div class="explorer-body"></div>\n'
        f'<p class="explorer-still"><img src="{root}_static/{FOLDER}/{name}.still.webp" '
        f'alt="{shown}"></p>\n'
        "<noscript><style>.explorer-still{display:block!important}"
        ".explorer-body{display:none}</style></noscript>\n"
        '<details class="explorer-text"><summary>The same in words</summary>\n'
    )


CLOSING = "</details></div>\n"


def _heights(given: str | None) -> tuple[int, int]:
    """Two whole numbers."""
    desk, phone = (int(x) for x in (given or "").split())
    return desk, phone


class Explorer(SphinxDirective):
    """The directive `explorer`."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "question": directives.unchanged_required,
        "alt": directives.unchanged_required,
        "height": _heights,
    }

    def run(self) -> list[nodes.Node]:
        """The container, with the parsed text inside."""
        name = self.arguments[0]
        if name not in SCRIPTS:
            raise self.error(f"no explorer {name!r}; choose {', '.join(SCRIPTS)}")
        if absent := [o for o in ("question", "alt", "height") if not self.options.get(o)]:
            raise self.error(f"the explorer {name!r} lacks {', '.join(absent)}")
        if not self.content:
            raise self.error(f"the explorer {name!r} has no text for those who don't see it")
        node = ExplorerNode(name=name, **self.options)
        self.state.nested_parse(self.content, self.content_offset, node)
        _explorers(self.env).setdefault(self.env.docname, []).append(name)
        return [node]


def _explorers(env: Any) -> dict[str, list[str]]:
    """Names of the explorers by page."""
    if not hasattr(env, "ld3m_explorers"):
        env.ld3m_explorers = {}
    found: dict[str, list[str]] = env.ld3m_explorers
    return found


def _visit(translator: Any, node: ExplorerNode) -> None:
    builder = translator.builder
    depth = 0 if builder.name == "singlehtml" else builder.current_docname.count("/")
    root = "../" * depth
    translator.body.append(
        opening(node["name"], node["question"], node["alt"], node["height"], root)
    )


def _depart(translator: Any, node: ExplorerNode) -> None:
    translator.body.append(CLOSING)


def scripts(names: Iterable[str]) -> list[str]:
    """Scripts of some explorers, each once, in the order in which they run."""
    wanted = ["explorer.js", *(file for name in names for file in SCRIPTS[name])]
    return [f"{FOLDER}/{file}" for file in dict.fromkeys(wanted)]


def _add_scripts(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    """Scripts and style of a page's explorers; Sphinx forgets them after the page."""
    found = _explorers(app.env)
    pages = found if app.builder.name == "singlehtml" else [page]
    names = [name for p in pages for name in found.get(p, ())]
    if not names:
        return
    app.add_css_file(f"{FOLDER}/explorers.css")
    for file in scripts(names):
        app.add_js_file(file, loading_method="defer")


def _purge(app: Any, env: Any, docname: str) -> None:
    _explorers(env).pop(docname, None)


def _merge(app: Any, env: Any, docnames: Iterable[str], other: Any) -> None:
    _explorers(env).update({k: v for k, v in _explorers(other).items() if k in docnames})


def _write_table(app: Any, error: Exception | None) -> None:
    """The data and the still of the explorer "table", where a page has it."""
    if error or app.builder.format != "html":
        return
    if not any("table" in names for names in _explorers(app.env).values()):
        return
    folder = Path(app.outdir) / "_static" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    data = table_data()
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    script = f'"use strict";\nglobalThis.LD3M.data["table"] = {text};\n'
    (folder / "table.data.js").write_text(script, encoding="utf-8")
    (folder / "table.still.webp").write_bytes(still(next(iter(data["groups"].values()))))


def setup(app: Any) -> dict[str, Any]:
    """Register directive, node and hooks."""
    app.add_node(ExplorerNode, html=(_visit, _depart))
    app.add_directive("explorer", Explorer)
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)
    app.connect("html-page-context", _add_scripts)
    app.connect("build-finished", _write_table)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

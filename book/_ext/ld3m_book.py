"""What the built book needs beyond Jupyter Book.

Buttons that open the notebooks elsewhere, MathJax beside the pages, docstrings as plain text, a
bibliography whose labels are those of the citations, and two repairs.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.util.fileutil import copy_asset

# of MathJax's 24 MB, what a page loads: the combined script and its fonts
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


class AuthorYearLabels(BaseLabelStyle):
    """Label an entry as the text cites it: "Moser et al., 2024"."""

    def format_labels(self, sorted_entries):
        """The label of each entry, in their order."""
        for entry in sorted_entries:
            names = [" ".join(p.prelast_names + p.last_names) for p in entry.persons["author"]]
            who = (
                names[0]
                if len(names) == 1
                else " and ".join(names)
                if len(names) == 2
                else f"{names[0]} et al."
            )
            yield f"{who}, {entry.fields['year']}"


class AuthorYearStyle(PlainStyle):
    """Plain entries, sorted by author, under such labels."""

    default_label_style = AuthorYearLabels


def _launch_buttons(app, config):
    """Buttons for Colab, Binder and the repository, where LD3M_REPOSITORY says its address.

    The address of a clone is unknown to it, so without one there are no buttons.
    """
    if not (address := os.environ.get("LD3M_REPOSITORY", "").strip().rstrip("/")):
        return
    options = config.html_theme_options
    options["repository_url"] = address
    options["repository_branch"] = os.environ.get("LD3M_BRANCH", "").strip() or "main"
    options["use_repository_button"] = True
    buttons = {"binderhub_url": "https://mybinder.org"}
    if address.startswith("https://github.com/"):  # Colab opens notebooks of GitHub alone
        buttons["colab_url"] = "https://colab.research.google.com"
    options["launch_buttons"] = {**options.get("launch_buttons", {}), **buttons}


def _no_launch_of_pages(app, pagename, templatename, context, doctree):
    """A page of text with cells is no notebook that Colab or Binder could open."""
    if not pagename.startswith("notebooks/"):
        buttons = context.get("header_buttons", [])
        context["header_buttons"] = [b for b in buttons if b.get("label") != "launch-buttons"]


def _dedupe_scripts(app, pagename, templatename, context, doctree):
    """One copy of each inline script.

    sphinx-thebe puts a `const` twice, which is an error in every page's console.
    """
    seen, out = set(), []
    for js in context.get("script_files", []):
        body = getattr(js, "attributes", {}).get("body")
        if body is not None:
            if body in seen:
                continue
            seen.add(body)
        out.append(js)
    context["script_files"] = out


def _singlehtml_nodes(app):
    """Let `--builder singlehtml` (for printing) know the nodes that extensions have for html."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


def _copy_mathjax(app, exc):
    """Put MathJax, from the installed wheel sphinx-mathjax-offline, beside the pages."""
    if exc or app.builder.format != "html":
        return
    src = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    dst = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX_PARTS:
        copy_asset(
            str(src / part), str((dst / part).parent if part.endswith(".js") else dst / part)
        )


def _plain_docstring(app, what, name, obj, options, lines):
    """Let docstrings write |x| and a * b: outside of backticks, neither is markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(
            p if p.startswith("`") else re.sub(r"(?<!\\)([*|])", r"\\\1", p) for p in parts
        )


def setup(app):
    """Register the hooks and the bibliography style."""
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    # before napoleon adds its own markup
    app.connect("autodoc-process-docstring", _plain_docstring, priority=400)
    app.connect("config-inited", _launch_buttons)
    app.connect("html-page-context", _no_launch_of_pages, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.connect("html-page-context", _dedupe_scripts, priority=900)
    app.connect("builder-inited", _singlehtml_nodes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

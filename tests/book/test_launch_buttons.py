"""Buttons that open a notebook on Colab and Binder: with an address, and only then."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
title: a small book
execute: {execute_notebooks: "off"}
launch_buttons: {notebook_interface: jupyterlab}
sphinx:
  recursive_update: true
  extra_extensions: [sphinx.ext.autodoc]
  local_extensions: {ld3m_book: EXTENSIONS}
"""
PAGE = """---
file_format: mystnb
kernelspec: {name: python3, display_name: Python 3}
---

# A page

```{code-cell}
1
```
"""


def pages(folder, **environment):
    """The notebook's page and the text's, of a book of two pages."""
    (folder / "notebooks").mkdir()
    (folder / "book").mkdir()
    cells = [nbformat.v4.new_markdown_cell("# A notebook"), nbformat.v4.new_code_cell("1")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel),
        folder / "notebooks" / "00_one.ipynb",
    )
    (folder / "book" / "two.md").write_text(PAGE)
    (folder / "_config.yml").write_text(CONFIG.replace("EXTENSIONS", str(ROOT / "book" / "_ext")))
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: notebooks/00_one\nchapters: [{file: book/two}]\n"
    )
    known = {k: v for k, v in os.environ.items() if not k.startswith("LD3M_")}
    done = subprocess.run(
        [Path(sys.executable).with_name("jupyter-book"), "build", folder],
        env=known | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    built = folder / "_build" / "html"
    return [(built / name).read_text() for name in ("notebooks/00_one.html", "book/two.html")]


@pytest.mark.slow
def test_with_an_address_a_notebook_opens_elsewhere(tmp_path):
    notebook, page = pages(tmp_path, LD3M_REPOSITORY="https://github.com/somebody/ld3m/")
    colab = (
        "https://colab.research.google.com/github/somebody/ld3m/blob/main/notebooks/00_one.ipynb"
    )
    binder = "https://mybinder.org/v2/gh/somebody/ld3m/main?urlpath=lab/tree/notebooks/00_one.ipynb"
    assert colab in notebook and binder in notebook
    assert "colab.research" not in page and "mybinder" not in page  # it is no notebook
    assert "https://github.com/somebody/ld3m" in page


@pytest.mark.slow
def test_without_one_there_is_no_button_and_elsewhere_no_colab(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    notebook, _ = pages(tmp_path / "a")
    assert "mybinder" not in notebook and "colab.research" not in notebook
    notebook, _ = pages(
        tmp_path / "b", LD3M_REPOSITORY="https://gitlab.com/somebody/ld3m", LD3M_BRANCH="next"
    )
    assert "mybinder.org/v2/gl/somebody%2Fld3m/next" in notebook
    assert "colab.research" not in notebook


def test_binder_installs_what_the_notebooks_need():
    lines = (ROOT / ".binder" / "requirements.txt").read_text().split("\n")
    assert lines[:2] == ["-c ../constraints.txt", "-e .[notebooks]"]
    assert (ROOT / ".binder" / "runtime.txt").read_text().startswith("python-3.")

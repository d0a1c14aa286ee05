"""Buttons that open a notebook on Colab and Binder: with an address, and only then."""

import importlib
import importlib.util
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


def install_cell(notebook):
    """The lines of a notebook that install the package where it isn't there."""
    source = (ROOT / "notebooks" / notebook).with_suffix(".py").read_text(encoding="utf-8")
    start = source.index("# without the package: install it")
    return source[start : source.index("sys.path.insert", start)]


def test_every_notebook_installs_in_the_same_way():
    names = [p.stem for p in (ROOT / "notebooks").glob("[0-9]*.py")]
    assert names and len({install_cell(n) for n in names}) == 1


def test_a_notebook_installs_from_its_clone_or_from_an_address(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda words, check: asked.append(words[5:]))
    names = {"os": os, "sys": sys, "subprocess": subprocess, "importlib": importlib}

    def opened_in(folder):
        monkeypatch.chdir(folder)
        exec(install_cell("00_quickstart"), dict(names))
        return asked[-1]

    assert opened_in(ROOT / "notebooks") == ["-e", "..[notebooks]"]
    monkeypatch.delenv("LD3M_REPOSITORY", raising=False)
    with pytest.raises(SystemExit, match="set address"):
        opened_in(tmp_path)
    monkeypatch.setenv("LD3M_REPOSITORY", "https://github.com/somebody/ld3m")
    assert opened_in(tmp_path) == ["ld3m-min[notebooks] @ git+https://github.com/somebody/ld3m"]

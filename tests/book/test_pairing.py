"""Each notebook is there twice, and the two agree: .py (edited), .ipynb (generated, executed)."""

import itertools
import re
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 300_000
MAX_IGNORED = 1 / 3  # share of code cells whose outputs nbval may not compare
MAX_LINE, MAX_SHOWN_LINE = 100, 80  # of a source; of a code cell that needn't be scrolled
MIN_EXERCISES, MAX_EXERCISES = 2, 4
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\-])(?:/(?:[\w.-]+/)+[\w.-]+|[A-Z]:\\\w+)")
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")


def cells(nb):
    """What must be equal in both files: each cell's type, text and tags."""
    return [(c.cell_type, c.source.rstrip(), tuple(c.metadata.get("tags", []))) for c in nb.cells]


def code_cells(path):
    """The non-empty code cells of the notebook at `path`."""
    return [c for c in jupytext.read(path).cells if c.cell_type == "code" and c.source.strip()]


def words(path):
    """The notebook's prose."""
    cells = jupytext.read(path).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def output_texts(cell):
    """Every text that a reader of the cell's outputs sees."""
    for out in cell.outputs:
        yield out.get("text", "")
        for kind, data in out.get("data", {}).items():
            if kind.startswith("text/"):
                yield DATA_URI.sub("", data)


def test_every_notebook_is_there_twice():
    sources = {p.stem for p in FOLDER.glob("*.py") if p.name != "conftest.py"}
    assert NOTEBOOKS
    assert sources == {p.stem for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_stem_cannot_be_imported(self, path):
        assert path.stem[0].isdigit(), (
            "the kernel runs in this folder: a stem like a module's name would shadow it"
        )

    def test_pair_in_sync(self, path):
        assert cells(jupytext.read(path)) == cells(jupytext.read(path.with_suffix(".py"))), (
            "run `make notebooks`"
        )

    def test_kernel_is_named(self, path):
        assert jupytext.read(path).metadata["kernelspec"]["name"] == "python3"

    def test_executed_in_order(self, path):
        counts = [c.execution_count for c in code_cells(path)]
        assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"

    def test_no_error_outputs(self, path):
        bad = [
            i
            for i, c in enumerate(code_cells(path))
            if any(o.output_type == "error" for o in c.outputs)
        ]
        assert not bad

    def test_small_enough(self, path):
        assert path.stat().st_size <= MAX_BYTES

    def test_outputs_name_no_path_or_address(self, path):
        texts = [t for c in code_cells(path) for t in output_texts(c)]
        assert not [m.group() for t in texts for m in ABSOLUTE_PATH.finditer(t)]
        assert not [t for t in texts if re.search(r" at 0x[0-9a-f]{6,}", t)]

    def test_most_outputs_are_compared(self, path):
        tags = [c.metadata.get("tags", []) for c in code_cells(path)]
        ignored = sum("nbval-ignore-output" in t or "nbval-skip" in t for t in tags)
        assert ignored <= MAX_IGNORED * len(tags)

    def test_has_parameters(self, path):
        assert any("parameters" in c.metadata.get("tags", []) for c in code_cells(path)), (
            "papermill needs the cell"
        )

    def test_lines_are_short(self, path):
        lines = path.with_suffix(".py").read_text(encoding="utf-8").splitlines()
        long = [x for x in lines if len(x) > MAX_LINE and not x.startswith("# %%")]
        assert not long, "only a cell's first line, with its alternative text, may be longer"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestShown:
    """What is claimed is shown in pictures, and asserted in folded cells."""

    def test_pictures_have_alternative_text(self, path):
        for cell in code_cells(path):
            kinds = [kind for out in cell.outputs for kind in out.get("data", {})]
            if any(kind.startswith("image/") for kind in kinds):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 40, cell.source

    def test_pictures_have_a_caption(self, path):
        """In italics below it, or below the picture that follows it; solutions have words."""
        nb = jupytext.read(path).cells
        folded = [c for c in nb if "hide-cell" in c.metadata.get("tags", [])]
        shown = [c for c in nb if c not in folded]
        for cell, after in itertools.pairwise(shown):
            if "image" in cell.metadata.get("mystnb", {}) and after.cell_type == "markdown":
                assert re.match(r"\*[^*]", after.source), cell.metadata["mystnb"]["image"]["alt"]

    def test_no_truth_value_is_printed(self, path):
        texts = [t for c in code_cells(path) for t in output_texts(c)]
        assert not [t for t in texts if re.search(r"\b(True|False)\b", t)], (
            "show a picture or a number, and assert in a folded cell"
        )

    def test_code_need_not_be_scrolled(self, path):
        lines = [x for c in code_cells(path) for x in c.source.splitlines()]
        assert not [x for x in lines if len(x) > MAX_SHOWN_LINE]

    def test_imports_are_folded(self, path):
        opening = code_cells(path)[1]
        assert "import torch" in opening.source
        assert "hide-cell" in opening.metadata["tags"]

    def test_a_bare_clone_installs_the_package(self, path):
        assert 'find_spec("ld3m_min") is None' in code_cells(path)[1].source

    def test_the_reader_predicts(self, path):
        text = words(path)
        asked = text.count("{admonition} Make a prediction")
        assert asked >= 2 and "**You need**" in text
        answers = len(re.findall(r"{admonition} Answer\n:class: dropdown", text))
        assert asked / 2 <= answers <= asked + 1

    def test_it_ends_with_exercises_and_what_comes_next(self, path):
        text = words(path)
        listed = text[text.index("## Exercises") :].split("```")[0]
        exercises = len(re.findall(r"^\d+\. ", listed, re.MULTILINE))
        assert MIN_EXERCISES <= exercises <= MAX_EXERCISES
        assert len(re.findall(r"{admonition} Solution \d\n:class: dropdown", text)) == exercises
        last = jupytext.read(path).cells[-1].source
        assert "**To take away.**" in last
        assert "book/" in last[last.index("**Next:**") :], "a page, not a notebook alone"

    def test_solutions_are_executed(self, path):
        cells = jupytext.read(path).cells
        for before, after in itertools.pairwise(cells):
            if before.source.startswith("```{admonition} Solution"):
                assert after.cell_type == "code" and "hide-cell" in after.metadata["tags"]

"""The core runs where no extra is installed: no notebook's, no book's, no table's package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ABSENT = (
    *("IPython", "ipykernel", "jupyter_book", "jupytext", "nbclient", "pandas"),
    *("papermill", "pyarrow", "snakemake", "sphinx", "transformers"),
)
# as if they were not installed: what looks for them finds nothing, as `import` does
DOOR = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        found = getattr(self.finder, 'find_spec', None)
        absent = name.partition('.')[0] in {ABSENT!r}
        return None if absent or found is None else found(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import json, tempfile, contextlib, io
from ld3m_min.commands import parsed
from ld3m_min.errors import Mistake
found = {{}}
for words in json.load(open(sys.argv[1])):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            parsed(words)()
        code = 0
    except Mistake as error:
        code = str(error)
    found[' '.join(words)] = [code, out.getvalue()]
found['loaded'] = sorted({{m.partition('.')[0] for m in sys.modules}} & set({ABSENT!r}))
json.dump(found, open(sys.argv[2], 'w'))
"""
SMOKE = ["smoke", "--iterations", "1"]
COMMANDS = [
    ["distil", *SMOKE, "--space", "ld3m", "--out", "d"],
    ["evaluate", "smoke", "d/set", "--architectures", "MLP", "--epochs", "1", "--repeats", "1"],
    ["select", "--method", "k-means", "--out", "s"],
    ["systems"],
    ["export", "d/set", "--format", "webdataset", "--out", "d.tar"],
    ["export", "d/set", "--format", "parquet", "--out", "d.parquet"],
    ["train-prior", "smoke", "--out", "p", "--records", "r", "--dry-run"],
    ["doctor"],
    ["plan", "smoke", "--no-probe", "--algorithm", "DM"],
    ["select", "letters", "--out", "l"],
    ["table"],
    ["train-prior", "things", "--size", "32", "--hours", "99", "--out", "p", "--dry-run"],
    ["distil", "things", "--size", "32", "--iterations", "1", "--no-evaluate", "--out", "o"],
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What each command ended with, and printed."""
    folder = tmp_path_factory.mktemp("core")
    for kind, shade in (("bottle", 40), ("can", 120), ("paper", 200)):
        (folder / "things" / kind).mkdir(parents=True)
        for k in range(40):
            image = Image.new("RGB", (32, 32), (shade + k, k, 3 * k))
            image.save(folder / "things" / kind / f"{k}.png")
    (folder / "words.json").write_text(json.dumps(COMMANDS))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "LD3M_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", DOOR, "words.json", "found.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: "-".join(words[:2]))
def test_a_command_runs_or_says_which_extra_it_needs(ran, words):
    code, _ = ran[" ".join(words)]
    needs = {"table": "experiments", "parquet": "parquet"}
    extra = next((e for word, e in needs.items() if word in words), None)
    if extra is None:
        assert code == 0
    else:
        assert f"pip install 'ld3m-min[{extra}]'" in code and "\n" not in code


def test_nothing_of_an_extra_was_loaded(ran):
    assert ran["loaded"] == [] and "ld3m-code" in ran["systems"][1]


def test_what_the_core_imports_is_what_it_depends_on():
    """Each package that a module of the core imports is in pyproject's dependencies."""
    import ast
    import tomllib

    from ld3m_min.doctor.machine import NEEDED
    from ld3m_min.io.extras import EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {d.partition(">")[0] for d in project["dependencies"]}
    assert stated == set(NEEDED)  # which `doctor` looks for
    extras = project["optional-dependencies"]
    assert all(any(p in d for d in extras[extra]) for p, extra in EXTRAS.items())
    for file in (ROOT / "ld3m_min").rglob("*.py"):
        if "experiments" in file.parts:
            continue
        # within functions too: there `needed` asks for what an extra brings
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            tops = {name.partition(".")[0] for name in names}
            others = tops - set(NEEDED.values()) - set(sys.stdlib_module_names) - {"ld3m_min"}
            assert not others, f"{file.name} imports {others}"


def test_diffusers_is_imported_where_it_is_used():
    """It takes longer to import than all else: no module loads it but the one of its subclass."""
    code = (
        "import importlib, pkgutil, sys, ld3m_min\n"
        "for m in pkgutil.walk_packages(ld3m_min.__path__, 'ld3m_min.'):\n"
        "    if m.name not in ('ld3m_min.__main__', 'ld3m_min.prior.single_token'):\n"
        "        importlib.import_module(m.name)\n"
        "print('ld3m_min.prior.kinds' in sys.modules, 'diffusers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]

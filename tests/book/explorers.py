"""What the tests of the explorers share: the folder, the extension, and node."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "book" / "_assets" / "explorers"
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "tools")]

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def extension():
    """The Sphinx extension, where Sphinx is installed."""
    pytest.importorskip("sphinx")
    return importlib.import_module("ld3m_explorers")


def data(name):
    """What a data file holds."""
    from explorers.output import read_script

    return read_script((FOLDER / f"{name}.data.js").read_text(encoding="utf-8"))


def run_node(files, expression, given=None):
    """The value of a JavaScript expression of `L` (the namespace) and `given`, after some files.

    The expression may be a promise.
    """
    loaded = json.dumps([str(FOLDER / f) for f in ("explorer.js", *files)])
    script = f"""
        const fs = require("fs");
        for (const file of {loaded}) (0, eval)(fs.readFileSync(file, "utf8"));
        const L = globalThis.LD3M, given = JSON.parse(fs.readFileSync(0, "utf8"));
        Promise.resolve({expression}).then((v) => console.log(JSON.stringify(v)));
    """
    done = subprocess.run(
        [NODE, "-e", script], input=json.dumps(given), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

"""Run notebooks in place and write outputs that do not change from run to run.

usage: python tools/execute.py notebooks/00_quickstart.ipynb ...

A notebook that fails is left as it was; the error names the notebook and shows the cell.
"""

import base64
import io
import json
import os
import re
import sys
import time
from pathlib import Path

# set before the Jupyter libraries are loaded; the kernels inherit them
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore")

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from PIL import Image

CELL_TIMEOUT = 900  # seconds
COLOURS = 32  # of a PNG: enough for a plot, a third of its bytes


def compact(png):
    """The picture, in base64, with a palette and on white; as it was where that is no smaller."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    buffer = io.BytesIO()
    small = Image.alpha_composite(white, image).convert("RGB").quantize(COLOURS)
    small.save(buffer, "png", optimize=True)
    packed = base64.b64encode(buffer.getvalue()).decode()
    return packed if len(packed) < len(png) else png


def normalise(nb):
    """The notebook without what differs between two equal runs.

    That is timings, versions, and the random ids of widgets and cells. PNG pictures get a palette.
    """
    nb.metadata.get("language_info", {}).pop("version", None)
    for i, cell in enumerate(nb.cells):
        cell.metadata.pop("execution", None)
        cell["id"] = f"cell-{i:03d}"
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = compact(output["data"]["image/png"])
    text = json.dumps(nb)
    ids = dict.fromkeys(re.findall(r'"model_id": "([0-9a-f]{32})"', text))
    state = (
        nb.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    ids.update(dict.fromkeys(state))
    for n, old in enumerate(ids):
        text = text.replace(old, f"{n:032x}")
    return nbformat.from_dict(json.loads(text))


def execute(path):
    """Run the notebook at `path` in its own folder, and write it back.

    The kernel is that of the current environment.
    """
    nb = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        nb, timeout=CELL_TIMEOUT, kernel_name="python3", record_timing=False, resources=resources
    )
    client.execute()
    nbformat.write(normalise(nb), path)


def main(names):
    """Execute the notebooks named on the command line.

    The exit status says whether all of them ran.
    """
    if not names:
        print(__doc__, file=sys.stderr)
        return 2
    for path in map(Path, names):
        start = time.perf_counter()
        print(f"running {path} ...", flush=True)
        if not path.is_file():
            print(
                f"error: there is no notebook {path}; `make notebooks` makes it from its .py twin",
                file=sys.stderr,
            )
            return 1
        try:
            execute(path)
        # a failed cell, a cell out of time, a lost kernel
        except (CellControlSignal, DeadKernelError) as error:
            print(f"error: {path} was left as it was:\n{error}", file=sys.stderr)
            return 1
        print(f"running {path} ... done in {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-own-images)=
# # Distil your own images
#
# You have a folder of pictures, one subfolder for each kind. Can a handful of made-up pictures take
# its place when a network is trained?
#
# **You will** look at a folder as the package sees it, distil it with one command, read what came
# out, and use the result without this package.
#
# **You will learn** what is held out and why, what the space does, and when a distilled set is
# worth the trouble.
#
# **You need** one CPU core, 1 GB of memory and a minute (preset `smoke`, on a folder that the
# notebook draws itself), or some minutes (`cpu`) for a folder of your own. No Internet. What is
# claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "smoke")
# where everything goes
out = os.environ.get("LD3M_OUT", "../runs/distil_your_own_images")
# your folder, one subfolder for each kind; "" draws one
folder = os.environ.get("LD3M_DATA", "")
seed = 0  # of every random draw
form = False  # True shows a form to choose folder and preset instead

# %% tags=["hide-cell"]
import importlib.util
import subprocess
import sys

# without the package: install it, once, from the clone that this notebook
# is in, or from an address, where a notebook is opened alone (Colab)
if importlib.util.find_spec("ld3m_min") is None:
    address = os.environ.get("LD3M_REPOSITORY", "")  # of the repository
    clone = os.path.exists("../pyproject.toml")
    if not clone and not address:
        raise SystemExit('set address = "https://..." above: the repository')
    what = ["-e", "..[notebooks]"]
    if not clone:
        what = [f"ld3m-min[notebooks] @ git+{address}"]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *what], check=True)
    sys.path.insert(0, "..")

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image, ImageDraw

from ld3m_min.coresets import select
from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.synthetic import SyntheticSet

viz.use_style()
out = Path(out)


def show(images, columns, titles=None, row_labels=None, scale=0.5):
    """A grid of images, as JPEG for a small file."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 60})
    return viz.image_grid(images, columns, titles, row_labels, scale=scale)


# %% [markdown]
# ## The folder
#
# Three kinds of things to sort: bottles, cans and crumpled paper, drawn in any colour, size and
# place, on any ground. Fifty of each, as a phone might take them, only worse.

# %% tags=["hide-input"]
KINDS = ("bottle", "can", "paper")


def picture(kind, rng, side=64):
    """One thing of a kind on some ground."""
    ground, paint = (
        tuple(int(v) for v in rng.integers(30, 226, 3)) for _ in "ab"
    )
    image = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(24, 40, 2))
    h = int(rng.integers(12, 22))
    if kind == "bottle":  # a body and a neck
        draw.rounded_rectangle(
            (x - h // 2, y - h // 2, x + h // 2, y + h), 3, paint
        )
        draw.rectangle((x - h // 5, y - h, x + h // 5, y), paint)
    elif kind == "can":  # a body with a lighter lid
        draw.rectangle((x - h // 2, y - h // 2, x + h // 2, y + h // 2), paint)
        lid = tuple(min(255, v + 60) for v in paint)
        draw.ellipse(
            (x - h // 2, y - h // 2 - 4, x + h // 2, y - h // 2 + 4), lid
        )
    else:  # a crumpled outline
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        radius = h * rng.uniform(0.6, 1.1, 12)
        points = zip(
            x + radius * np.cos(angles),
            y + radius * np.sin(angles),
            strict=True,
        )
        draw.polygon([(float(a), float(b)) for a, b in points], paint)
    return image


if not folder:
    folder = out / "things"
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(50):
            picture(kind, rng).save(folder / kind / f"{i:03d}.png")

# %% [markdown]
# ```{admonition} Make a prediction
# Of each kind's fifty pictures, how many will the distillation see, if some must be kept to choose
# by and some to test on?
# ```

# %%
data = load_data(folder, size=32)
for name in ("train", "validation", "test"):
    print(f"{name:10} {len(data.split(name)):4} pictures")
print("classes   ", ", ".join(data.classes))

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# A fifth is set aside to test on, and a tenth of the rest to choose by. What is left is distilled.
# The test pictures are looked at once, at the end.
# ```

# %% tags=["hide-cell"]
counts = [len(data.split(s)) for s in ("train", "validation", "test")]
assert all(counts) and len(set(data.classes)) == len(data.classes)

# %% mystnb={"image": {"alt": "A contact sheet: a row for each kind, eight pictures in each, small things of one colour on a ground of another."}}
K = min(8, int(data.train.labels.bincount().min()))
first = [
    data.train.float()[data.train.labels == k][:K]
    for k in range(len(data.classes))
]
show(torch.cat(first[:8]), K, row_labels=data.classes[:8])
plt.show()

# %% [markdown]
# *Eight pictures of each kind, as the package sees them.*
#
# ## One command
#
# The command picks what is learned by what there is. Without a prior of these images it learns
# pixels; `python -m ld3m_min train-prior FOLDER --hours 2` trains a prior, and `--prior` gives it
# to the command. It prints its plan, asks nothing, and can be stopped: the same words go on.

# %%
words = ["distil", str(folder), "--size", "32", "--out", str(out / "run")]
words += [
    "--lr",
    "0.03",
]  # a gentle rate, which leaves the pictures recognisable
if preset == "smoke":
    words += ["--iterations", "12", "--no-evaluate"]

# %% tags=["nbval-ignore-output"]
found = subprocess.run(
    [sys.executable, "-m", "ld3m_min", *words, "--seed", str(seed)],
    capture_output=True, text=True, check=True,
)  # fmt: skip
where = str(out.absolute())
print(found.stdout.replace(where, "OUT").replace(str(out), "OUT"))

# %% [markdown]
# While it ran, `preview.html` in the run's folder showed the pictures and the loss. `report.html`
# has the end of it: the pictures beside real ones, the loss, the accuracies, what was run. Both are
# single files, to be opened in any browser or sent to anybody.

# %% [markdown]
# ```{admonition} Make a prediction
# One picture stands for each kind. Will it look like one thing, or like several at once?
# ```

# %% mystnb={"image": {"alt": "Two rows, a column for each kind. Above the real pictures that the set starts from, below the distilled ones: the outline is still there, with colours and traces of other things over it."}}
made = SyntheticSet.load(out / "run" / "set")
start = select(data, 1, "random", seed=seed)
rows = torch.cat([start.images(), made.images()])
show(rows, len(data.classes), data.classes, ["a real one", "distilled"], 0.9)
plt.show()

# %% [markdown]
# *Above, the real pictures that the set started from; below, what was learned.*
#
# ```{admonition} Answer
# :class: dropdown
# Like one thing with traces of others. Pixels start at a real picture and are moved until a network
# can't tell their features from the mean of many; what many pictures have in common is drawn over
# the one.
# ```

# %%
loss = [h["loss"] for h in made.history]
print(f"{len(made.labels)} pictures, {len(loss)} iterations")

# %% tags=["hide-cell"]
assert len(made.labels) == len(data.classes)
assert all(np.isfinite(loss))

# %% mystnb={"image": {"alt": "The loss over the iterations, on a logarithmic axis. It falls, with jumps from one iteration to the next, since each sees other pictures and another network."}}
set_matplotlib_formats("png")
fig, axis = plt.subplots(figsize=(4.6, 2.4), layout="constrained")
axis.plot(range(1, len(loss) + 1), loss)
axis.set(xlabel="iteration", ylabel="loss", yscale="log")
plt.show()

# %% [markdown]
# *The loss of each iteration, summed over the kinds.*
#
# ## Is it worth it?
#
# The report answers it: networks are trained on the distilled pictures, on as many random real
# ones, and on all, and tested on pictures that nobody has seen. With the preset `smoke` that is
# left out; with `cpu` the end of what the command printed says it in a sentence. Three things
# decide:
#
# - **How few pictures may there be?** The fewer, the weaker the rival of as many random ones. The
#   more, the nearer training on all of them: the report has both.
# - **Which network will be trained?** Compare the networks in the report: one distilled, the others
#   did not. The paper's claim is that latents transfer better than pixels; try both on your images.
# - **How many test pictures are there?** With thirty, an accuracy is known to about 17 points; the
#   report says so.

# %% [markdown]
# ## Without this package
#
# The set is a folder of PNG files by class, with a card. The card has five lines that train a plain
# PyTorch network on it; they need neither this package nor its prior.

# %%
card = (out / "run" / "set" / "README.md").read_text()
snippet = re.search(r"```python\n(.*?)```", card, re.S).group(1)
print(snippet)

# %% [markdown]
# Other formats come from `python -m ld3m_min export SET --format npz` (or `imagefolder`,
# `webdataset`, `parquet`), and `push` brings the set to a hub.

# %%
export = ["export", str(out / "run" / "set"), "--format", "npz"]
file = out / "things.npz"
file.unlink(missing_ok=True)
subprocess.run(
    [sys.executable, "-m", "ld3m_min", *export, "--out", str(file)],
    check=True, capture_output=True,
)  # fmt: skip
arrays = np.load(file)
for name in ("images", "labels", "classes", "mean", "std"):
    print(f"{name:8} {arrays[name].shape}")

# %% [markdown]
# ## A form instead of parameters
#
# With `form = True` above, the next cell shows fields for the folder and the preset. The rest of
# the notebook reads them when it is run again from the top.

# %% tags=["hide-input"]
if form:
    import ipywidgets as widgets
    from IPython.display import display

    fields = {
        "LD3M_DATA": widgets.Text(str(folder), description="folder"),
        "LD3M_PRESET": widgets.Dropdown(
            options=["smoke", "cpu"], value=preset, description="preset"
        ),
    }

    def keep(change):
        """Note what was chosen, for the parameters' cell."""
        for name, field in fields.items():
            os.environ[name] = field.value

    for field in fields.values():
        field.observe(keep, "value")
    display(widgets.VBox(list(fields.values())))

# %% [markdown]
# ## Exercises
#
# 1. How many bytes are the set's pictures as PNG, and how many is the folder?
# 2. The rate above is 0.03. Make the set again at 0.3, in another folder. Is the loss lower, and
#    what do the pictures look like?
# 3. Which of the things that `set.json` keeps would you need to make the same set again?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# Counted below. The bytes of a drawn picture are few to begin with.
# ```

# %% tags=["hide-cell", "nbval-ignore-output"]
pngs = (out / "run" / "set" / "images").rglob("*.png")
ours = sum(f.stat().st_size for f in pngs)
files = [f for f in Path(folder).rglob("*") if f.is_file()]
whole = sum(f.stat().st_size for f in files)
print(f"{ours / 1e3:.1f} kB for {len(made.labels)} pictures")
print(
    f"{whole / 1e3:.0f} kB for {len(files)}: {whole / ours:.0f} times as many"
)

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# The loss is no lower, and the pictures are noise. A large step overshoots, and the features of a
# random network hardly mind: nothing in the loss forbids noise.
# ```

# %% tags=["hide-cell"] mystnb={"image": {"alt": "The distilled pictures at a rate of 0.3, a column for each kind: coloured noise with a hint of a shape in the middle."}}
again = [w if w != "0.03" else "0.3" for w in words]
again[again.index("--out") + 1] = str(out / "again")
subprocess.run(
    [sys.executable, "-m", "ld3m_min", *again, "--seed", str(seed)],
    check=True,
    capture_output=True,
)
coarse = SyntheticSet.load(out / "again" / "set")
show(coarse.images(), len(data.classes), data.classes, ["at 0.3"], 0.9)
plt.show()
last = [np.mean([h["loss"] for h in m.history[-4:]]) for m in (made, coarse)]
assert last[1] > 0.8 * last[0]

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The configuration with its seed, the data with its digest and, where there is one, the prior with
# its own: it is all there. To the last bit it needs the same versions, machine and threads, too;
# the other entries name them, and say how fast it went.
# ```

# %% tags=["hide-cell"]
recipe = json.loads((out / "run" / "set" / "set.json").read_text())["recipe"]
print("the recipe has", ", ".join(sorted(recipe)))
print(
    "the seed is", recipe["config"]["seed"], "of", recipe["config"]["dataset"]
)

# %% [markdown]
# **To take away.** One command goes from a folder to a set, with its own pictures held out, and a
# page that says what the set is worth. Without a prior of your images it learns pixels; with one it
# learns codes. The set needs nothing of this package to be used.
#
# **Next:** {doc}`../book/experiments/43_own_prior`, to train the prior that the command would take.

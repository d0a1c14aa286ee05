# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (nb-kill)=
# # Kill and resume
#
# What is lost when a machine is taken away in the middle of a distillation?
#
# **You will** kill a distillation twice with the signal that no process can catch, start the same
# run again, and compare it with a run that was never killed; flip one bit of a checkpoint; and ask
# a run politely to stop.
#
# **You will learn** why a resumed run is the same run, and what is done when a checkpoint is
# damaged.
#
# **You need** one CPU core, 1 GB of memory, half a minute (preset `smoke`; a minute with `cpu`),
# and Linux or macOS. No GPU, no Internet. The promises and their tests are on
# {doc}`../book/reference/determinism`. What is claimed is also asserted, in the folded cells.

# %% tags=["parameters"]
import os

# of the distillation; smoke is enough to see it
preset = os.environ.get("LD3M_PRESET", "smoke")
iterations = 24
seed = 0  # of the run, and of the moments at which it is killed
# where the runs go
out = os.environ.get("LD3M_OUT", "../runs/kill_and_resume")

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

import multiprocessing
import random
import shutil
import signal
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib_inline.backend_inline import set_matplotlib_formats

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.experiments import figures as viz
from ld3m_min.experiments.style import BLUE, GREY, ORANGE
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json
from ld3m_min.io.seeds import seeded
from ld3m_min.run import distil
from ld3m_min.synthetic import SyntheticSet

viz.use_style()


def plot(rows=1, columns=1, **kwargs):
    """Empty plots, as PNG."""
    set_matplotlib_formats("png")
    return plt.subplots(rows, columns, layout="constrained", **kwargs)


# of the processes that are started: the same bits, and a fork is safe
os.environ["OMP_NUM_THREADS"] = "1"
# each run is a process of its own, forked where all is imported
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ld3m_min.run"])
place = Path(out).resolve() / "kills"
shutil.rmtree(place, ignore_errors=True)
data = load_data("digits")
config = presets.preset(
    preset,
    space="pixel",
    algorithm="DM",
    iterations=iterations,
    seed=seed,
    checkpoint_every=1,
)


def start(folder):
    """The run, in a process of its own."""
    more = {"data": data, "out": folder, "progress": False}
    run = processes.Process(target=distil, args=(config,), kwargs=more)
    run.start()
    return run


def saved(folder):
    """The steps of the checkpoints that are there."""
    found = (folder / "checkpoints").glob("step-*/manifest.json")
    return sorted(int(p.parent.name[5:]) for p in found)


# %% [markdown]
# ## A run that is left alone
#
# Ten digits, {term}`DM` on their pixels, a checkpoint after each iteration. (`start` is in the
# folded cell: `distil`, in a process of its own.)

# %%
unkilled = start(place / "unkilled")
unkilled.join()
print("exit code", unkilled.exitcode)
print("checkpoints kept:", saved(place / "unkilled"))

# %% [markdown]
# ## The same run, killed
#
# `SIGKILL` ends a process at once: it cannot be caught, nothing is tidied up, and a file may be
# half-written. A machine that is taken away looks the same to the run. Here it comes at a random
# moment after a checkpoint that is drawn, too; and again, when the run has been started again.
#
# ```{admonition} Make a prediction
# After two kills and three starts: are the ten images the same, the same up to rounding, or others?
# ```

# %%
killed, draws, codes, at = place / "killed", random.Random(seed), [], []
for least in (6, 14):
    run = start(killed)
    while run.is_alive() and max(saved(killed), default=0) < least:
        time.sleep(0.005)
    time.sleep(draws.uniform(0, 0.03))
    run.kill()
    run.join()
    codes.append(-run.exitcode)
    at.append(max(saved(killed)))
print("killed by signals", codes, "| SIGKILL is", int(signal.SIGKILL))
run = start(killed)
run.join()
print("third start: exit code", run.exitcode)
a, b = (SyntheticSet.load(x / "set") for x in (place / "unkilled", killed))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "The loss over the iterations: a thick blue line of the run that was left alone, and a dashed orange one of the killed run exactly on top of it. Two vertical lines mark the kills. Dots in three rows below show which process did which iteration."}}
fig, axis = plot(figsize=(4.6, 3))
lines = [[entry["loss"] for entry in x.history] for x in (a, b)]
steps = range(1, iterations + 1)
axis.plot(steps, lines[0], "-", color=BLUE, lw=6, alpha=0.4, label="left alone")
axis.plot(steps, lines[1], "--", color=ORANGE, label="killed twice")
top = max(lines[0])
for k, step in enumerate(at, 1):
    axis.axvline(step + 0.5, color="black", lw=1)
    axis.text(step + 0.7, 1.1 * top, f"kill {k}", fontsize=9)
edges = [0, *at, iterations]
for k, (begin, end) in enumerate(pairwise(edges), 1):
    own = range(begin + 1, end + 1)
    axis.plot(own, [0.02 * top] * len(own), ".", color=GREY, ms=4)
    middle = (begin + end + 1) / 2
    axis.text(middle, 0.06 * top, f"process {k}", ha="center", fontsize=8)
axis.set(xlabel="iteration", ylabel="loss of DM", ylim=(0, 1.2 * top))
axis.set_title("Killed twice, and the same run")
_ = axis.legend(loc="center right", bbox_to_anchor=(1, 0.35))
# %% [markdown]
# *The loss of each iteration, as the two finished sets have it in their history. The kills came at
# random, so your lines stand elsewhere; the curves do not.*

# %% mystnb={"image": {"alt": "Three rows of ten small digits: of the run left alone, of the killed run, and their difference, which is black everywhere."}}
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 50})
one, other = a.images(), b.images()
fig = viz.image_grid(
    torch.cat([one, other, (one - other).abs()]),
    10,
    row_labels=["left alone", "killed", "difference"],
    scale=0.42,
)
# %% [markdown]
# *The ten images of both runs, and the difference: black is zero.*
#
# ```{admonition} Answer
# :class: dropdown
# The same, to the last bit: images, history, and the optimiser's momenta in the last checkpoints.
# ```

# %% tags=["hide-cell"]
assert torch.equal(one, other) and a.history == b.history and codes == [9, 9]
assert 6 <= at[0] < at[1] < iterations
last = f"step-{iterations:08d}"
manifest = place / "unkilled" / "checkpoints" / last / "manifest.json"
stored = read_json(manifest)["config"]
ends = [
    Checkpointer(x / "checkpoints", stored).load()
    for x in (place / "unkilled", killed)
]
for name, tensor in ends[0].tensors.items():
    assert torch.equal(tensor, ends[1].tensors[name])
print("compared:", sorted(ends[0].tensors))

# %% [markdown]
# ## Why: randomness is counted
#
# The usual way is one random generator for the whole run. A run that starts again must put its
# state back exactly, and everything that draws from it has to come in the same order. Here each
# draw has a generator of its own, made of the seed, a purpose and the iteration.
#
# ```{admonition} Make a prediction
# Draw two numbers in each of eight iterations, then start again at the sixth. Which draws of the
# second start agree with the first one's, under each of the two ways?
# ```

# %%
usual = torch.Generator().manual_seed(seed + 1)
first = {"one generator": [torch.randn(2, generator=usual) for _ in range(8)]}
usual = torch.Generator().manual_seed(seed + 1)  # started again
again = {"one generator": [torch.randn(2, generator=usual) for _ in range(3)]}


def counted(i):
    return torch.randn(2, generator=seeded(seed, "demo", i))


first["counted"] = [counted(i) for i in range(8)]
again["counted"] = [counted(i) for i in range(5, 8)]

# %% mystnb={"image": {"alt": "Two plots of random draws over eight iterations, circles for the first start and crosses for the second, which begins at the sixth. On the left, with one generator, the crosses miss the circles. On the right, counted, each cross lies in a circle."}}
fig, axes = plot(1, 2, figsize=(4.6, 2.5), sharey=True)
for axis, name in zip(axes, first, strict=True):
    before, after = torch.stack(first[name]), torch.stack(again[name])
    for k in range(2):
        label = "first start" if k == 0 else None
        axis.plot(
            range(1, 9),
            before[:, k],
            "o",
            ms=8,
            mfc="none",
            color=BLUE,
            label=label,
        )
        label = "second start" if k == 0 else None
        axis.plot(
            range(6, 9), after[:, k], "x", ms=6, color=ORANGE, label=label
        )
    axis.set(xlabel="iteration", title=name, xticks=range(1, 9))
axes[0].set_ylabel("what is drawn")
handles = axes[0].get_legend_handles_labels()
_ = fig.legend(*handles, loc="outside lower center", ncols=2)
# %% [markdown]
# *Two numbers in each iteration, and those of a second start at iteration 6.*
#
# ```{admonition} Answer
# :class: dropdown
# With one generator that begins anew, none; counted, all. There is no state to save, and nothing to
# put back in order.
# ```

# %% tags=["hide-cell"]
for x, y in zip(first["counted"][5:], again["counted"], strict=True):
    assert torch.equal(x, y)
for x, y in zip(
    first["one generator"][5:], again["one generator"], strict=True
):
    assert not torch.isclose(x, y).any()

# %% [markdown]
# ## A flipped bit
#
# Disks fail slowly. One bit of the newest checkpoint is turned over.
#
# ```{admonition} Make a prediction
# One bit of some ten thousand bytes. Does anybody notice? And what should be done: refuse, go on,
# or go back?
# ```

# %%
damaged = killed / "checkpoints" / last / "state.safetensors"
content = bytearray(damaged.read_bytes())
content[len(content) // 2] ^= 1
damaged.write_bytes(content)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = Checkpointer(killed / "checkpoints", stored).load()
print(f"taken instead: step {found.step} of {iterations}")
print(str(said[0].message).split("\n")[1].strip())

# %% tags=["hide-cell"]
run = start(killed)  # the last iteration is done again
run.join()
assert torch.equal(SyntheticSet.load(killed / "set").images(), one)
assert found.step == iterations - 1

# %% [markdown]
# ```{admonition} Answer
# :class: dropdown
# The checksum in the manifest does. The checkpoint before is used, a warning names the file, the
# last iteration is done again, and the images are the same (asserted in the folded cell).
# ```
#
# With both checkpoints damaged, nothing is guessed:

# %%
for file in (killed / "checkpoints").glob("step-*/state.safetensors"):
    file.write_bytes(file.read_bytes()[:-1])
try:
    Checkpointer(killed / "checkpoints", stored).load()
except ValueError as error:
    print(str(error).replace(str(killed), "..."))

# %% [markdown]
# ## Asked politely
#
# SIGTERM (what a cluster sends before it kills), Ctrl-C and `--max-seconds` let the iteration end,
# save and leave, with exit code 143, 130 or 75. A queue can tell from the code that the same
# command has to be started again. This time it is the command line, with more iterations than there
# is time for.

# %%
command = [sys.executable, "-m", "ld3m_min", "distil", "--preset", preset]
command += ["--space", "pixel", "--iterations", "100000"]
command += ["--seed", str(seed), "--out", str(place / "polite")]
run = subprocess.Popen(
    command,
    env=os.environ | {"TQDM_DISABLE": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
while run.poll() is None and not saved(place / "polite"):
    time.sleep(0.01)
run.send_signal(signal.SIGTERM)
text = run.communicate()[0]
print("exit code", run.returncode)

# %% tags=["nbval-ignore-output"]
line = next(x for x in text.splitlines() if "of 100000 iterations" in x)
print(line.replace(str(place), "..."))

# %% tags=["hide-cell"]
assert run.returncode == 143 and "of 100000 iterations are saved" in text

# %% [markdown]
# ## Exercises
#
# 1. Start a run with another seed in the folder of a finished one. What does it say?
# 2. Remove `manifest.json` of the newest checkpoint instead of flipping a bit. Which one is taken?
# 3. How much work does a kill cost at most, with `checkpoint_every=100`?

# %% [markdown]
# ```{admonition} Solution 1
# :class: dropdown
# It refuses, with the difference: the folder is another run's.
# ```

# %% tags=["hide-cell"]
elsewhere = replace(config, seed=seed + 1)
try:
    distil(elsewhere, data=data, out=place / "unkilled", progress=False)
except ValueError as error:
    print(str(error).replace(str(place), "..."))

# %% [markdown]
# ```{admonition} Solution 2
# :class: dropdown
# The one before, with a warning. The manifest is written last, so a folder without it was never
# finished.
# ```

# %% tags=["hide-cell"]
manifest.unlink()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = Checkpointer(place / "unkilled" / "checkpoints", stored).load()
print(f"taken: step {found.step} of {iterations}; warnings: {len(said)}")
assert len(said) == 1
assert found.step == iterations - 1

# %% [markdown]
# ```{admonition} Solution 3
# :class: dropdown
# The iterations since the last checkpoint: up to 100, of which the hundredth may have been about to
# be saved. On average, with kills at any moment, half of that; the folded cell draws ten thousand.
# ```

# %% tags=["hide-cell"]
moments = [draws.uniform(0, 5000) for _ in range(10_000)]
cost = [m % 100 for m in moments]
print(f"lost at most {max(cost):.0f} iterations, on average ", end="")
print(f"{sum(cost) / len(cost):.0f}")
assert max(cost) < 100

# %% [markdown]
# **To take away.** A run that was killed goes on from its last checkpoint, and gives the same bits
# as one that was left alone. That holds because no draw depends on what was drawn before. A damaged
# checkpoint is noticed by its checksum and replaced by the one before it, never used.
#
# **Next:** {doc}`../book/reference/determinism` has the promises, and twenty faults with the test
# of each. What was distilled with these runs is on {doc}`../book/experiments/digits_claim`.

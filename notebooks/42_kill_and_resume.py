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
# **You will** kill a distillation with the signal that no process can catch, start the same run
# again, and compare every bit with a run that was never killed; flip a byte of a checkpoint; stop a
# run politely.
#
# **You will learn** why a resumed run is the same run, and what is done when a checkpoint is
# damaged.
#
# **You need** one CPU core, half a minute, and Linux or macOS. The promises and their tests are on
# {doc}`../book/reference/determinism`.

# %% tags=["parameters"]
import os

preset = os.environ.get("LD3M_PRESET", "smoke")  # of the distillation; smoke is enough to see it
iterations = 12
seed = 0  # of the run, and of the moments at which it is killed
out = os.environ.get("LD3M_OUT", "../runs/kill_and_resume")  # where the runs go

# %%
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from ld3m_min import presets
from ld3m_min.data import load_data
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json
from ld3m_min.io.seeds import seeded
from ld3m_min.run import distil
from ld3m_min.synthetic import SyntheticSet

# of the processes that are started: the same bits, and a fork is safe
os.environ["OMP_NUM_THREADS"] = "1"
# each run is a process of its own, forked where all is imported
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["ld3m_min.run"])
place = Path(out).resolve() / "kills"
shutil.rmtree(place, ignore_errors=True)
data = load_data("digits")
config = presets.preset(
    preset, space="pixel", algorithm="DM", iterations=iterations, seed=seed, checkpoint_every=1
)


def start(folder):
    """The run, in a process of its own."""
    run = processes.Process(
        target=distil, args=(config,), kwargs={"data": data, "out": folder, "progress": False}
    )
    run.start()
    return run


def saved(folder):
    """The steps of the checkpoints that are there."""
    return [
        int(p.parent.name[5:])
        for p in sorted((folder / "checkpoints").glob("step-*/manifest.json"))
    ]


# %% [markdown]
# ## A run that is left alone

# %%
whole = start(place / "whole")
whole.join()
print("exit code", whole.exitcode, "| checkpoints kept:", saved(place / "whole"))

# %% [markdown]
# ## The same run, killed
#
# `SIGKILL` ends a process at once: it cannot be caught, nothing is tidied up, and a file may be
# half-written. A machine that is taken away looks the same to the run. Here it comes at a random
# moment after a checkpoint that is drawn, too.

# %%
killed, draws, kills = place / "killed", random.Random(seed), []
for least in (3, 7):
    run = start(killed)
    while run.is_alive() and max(saved(killed), default=0) < least:
        time.sleep(0.005)
    time.sleep(draws.uniform(0, 0.03))
    run.kill()
    run.join()
    kills.append(run.exitcode)
print(
    "killed by signal",
    [-code for code in kills],
    "| SIGKILL is",
    int(signal.SIGKILL),
    "| finished:",
    (killed / "set").exists(),
)

# %% [markdown]
# How far it came depends on the machine:

# %% tags=["nbval-ignore-output"]
print("iterations that are saved:", saved(killed))

# %% [markdown]
# Started again, the same call goes on from the last checkpoint.

# %%
run = start(killed)
run.join()
print("exit code", run.exitcode)
a, b = (SyntheticSet.load(place / name / "set") for name in ("whole", "killed"))
print(
    "images equal, bit for bit:",
    torch.equal(a.images(), b.images()),
    "| history equal:",
    a.history == b.history,
)
stored = read_json(place / "whole" / "checkpoints" / f"step-{iterations:08d}" / "manifest.json")[
    "config"
]
ends = [Checkpointer(place / name / "checkpoints", stored).load() for name in ("whole", "killed")]
print(
    "momenta equal:",
    all(torch.equal(v, ends[1].tensors[k]) for k, v in ends[0].tensors.items()),
    sorted(ends[0].tensors),
)
assert torch.equal(a.images(), b.images()) and a.history == b.history and kills == [-9, -9]

# %% [markdown]
# ## Why: randomness is counted
#
# A run that saves the state of one random generator has to put it back exactly, and everything that
# draws from it has to come in the same order. Here each draw has a generator of its own, made of
# the seed, a purpose and the iteration. The draws of iteration 7 are the same whether or not the
# first six were made in this process.

# %%
straight = [torch.randn(2, generator=seeded(seed, "demo", i)) for i in range(8)]
resumed = [torch.randn(2, generator=seeded(seed, "demo", i)) for i in range(5, 8)]
print(all(torch.equal(x, y) for x, y in zip(straight[5:], resumed, strict=True)))

# %% [markdown]
# ## A flipped byte
#
# Disks fail slowly. One bit of the newest checkpoint is turned. Its checksum says so, the one
# before is used, and a warning names the file. The last iteration is done again, and nothing is
# lost.

# %%
damaged = killed / "checkpoints" / f"step-{iterations:08d}" / "state.safetensors"
content = bytearray(damaged.read_bytes())
content[len(content) // 2] ^= 1
damaged.write_bytes(content)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = Checkpointer(killed / "checkpoints", stored).load()
print("taken instead: step", found.step)
print(str(said[0].message).split("\n")[1].strip())
run = start(killed)
run.join()
print("equal again:", torch.equal(SyntheticSet.load(killed / "set").images(), a.images()))
assert found.step == iterations - 1

# %% [markdown]
# With both damaged, nothing is guessed.

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
# command shall be started again. This time it is the command line, with more iterations than there
# is time for.

# %%
command = [
    sys.executable,
    "-m",
    "ld3m_min",
    "distil",
    "--preset",
    preset,
    "--space",
    "pixel",
    "--iterations",
    "100000",
    "--seed",
    str(seed),
    "--out",
    str(place / "polite"),
]
quiet = os.environ | {"TQDM_DISABLE": "1"}
run = subprocess.Popen(
    command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
)
while run.poll() is None and not saved(place / "polite"):
    time.sleep(0.01)
run.send_signal(signal.SIGTERM)
text = run.communicate()[0]
print(
    "exit code",
    run.returncode,
    "| says that it is saved:",
    "of 100000 iterations are saved" in text,
)
assert run.returncode == 143

# %% [markdown]
# ## Exercises
#
# 1. Start a run with another seed in the folder of a finished one. What does it say?
# 2. Remove `manifest.json` of the newest checkpoint instead of flipping a byte. Which one is taken?
# 3. How much work does a kill cost at most, with `checkpoint_every=100`?
#
# ```{admonition} Solutions
# :class: dropdown
# 1. It refuses, with the difference: `seed: 0 -> 1`. The folder is another run's.
# 2. The one before: the manifest is written last, so a folder without it was never finished.
# 3. The iterations since the last checkpoint: up to 100, of which the hundredth may have been about
#    to be saved.
# ```
#
# **Next**: {doc}`../book/reference/determinism`.

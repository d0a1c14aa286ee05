"""Take a prior of less training from this repository's history, and measure it.

    python tools/earlier_prior.py imagenette-64-6k

The denoiser of `imagenette-64` was trained in sittings, at whose ends the rate had fallen and the
weights were committed. So the priors of 6,500 and 19,000 steps need no training of their own.
Their decoder is that of the finished prior, which was trained further after them: latents and
denoiser don't know it. Written to runs/prior-NAME, where the grids look for it, with its record in
book/_data/records, as `train-prior` does; a stopped run keeps what its classifier has learned.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import torch

from ld3m_min.data import load_data
from ld3m_min.errors import InputError
from ld3m_min.experiments.grids import AUTOENCODER
from ld3m_min.experiments.places import PROJECT, RECORDS, prior_folder
from ld3m_min.io.values import from_dict
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.card import finish_prior
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.training_log import FILE, TrainingLog

SITTINGS = "book/_data/priors/imagenette-64-unfinished"


def from_history(steps, folder, *, repository=PROJECT, sittings=SITTINGS):
    """Write the prior whose denoiser had had so many steps into a folder.

    Args:
        steps: of the denoiser.
        folder: to write to.
        repository: whose history is read.
        sittings: the prior's folder there.

    Raises:
        InputError: no commit has such a prior; lists the steps that there are.
    """

    def git(*words):
        done = subprocess.run(["git", "-C", repository, *words], capture_output=True, check=True)
        return done.stdout

    known = []
    training, depth = f"{sittings}/{FILE}", len(Path(sittings).parts)
    for commit in git("log", "--diff-filter=AM", "--format=%H", "--", training).decode().split():
        log = from_dict(TrainingLog, json.loads(git("show", f"{commit}:{training}")), training)
        known.append(log.denoiser_steps)
        if known[-1] == steps:
            archive = io.BytesIO(git("archive", commit, sittings))
            with tarfile.open(fileobj=archive) as files:
                members = [m for m in files if m.isfile()]
                for member in members:
                    member.name = str(Path(*Path(member.name).parts[depth:]))
                files.extractall(folder, members, filter="data")
            return
    raise InputError(
        f"the history of {sittings} has priors of {', '.join(map(str, known)) or 'no'} steps, not "
        f"of {steps}; a clone without its history has fewer: git fetch --unshallow"
    )


def with_its_decoder(folder, finished):
    """The prior in a folder, with the decoder that a later training gave to its autoencoder.

    Args:
        folder: of the earlier prior; its log counts the decoder's steps from then on, whose minutes
            are not in its seconds.
        finished: folder of a prior, or of an autoencoder alone, with that decoder.

    Raises:
        InputError: the encoders differ, and so do their latents.
    """
    prior, other = (LatentDiffusionPrior.from_pretrained(f) for f in (folder, finished))
    encoder, same = (p.autoencoder.encoder.state_dict() for p in (prior, other))
    if not all(torch.equal(v, same[k]) for k, v in encoder.items()):
        raise InputError(f"{folder} and {finished} have other encoders, so other latents")
    prior.autoencoder.load_state_dict(other.autoencoder.state_dict())
    steps = TrainingLog.of(finished).decoder_steps
    replace(TrainingLog.of(folder), decoder_steps=steps).save(folder)
    return prior


def main(name):
    config, out = prior_preset(name), prior_folder(name)
    from_history(config.unet_steps, out / "start")
    prior = with_its_decoder(out / "start", PROJECT / AUTOENCODER)
    data = load_data(config.dataset, size=config.size)
    print(finish_prior(config, data, prior, out, records=RECORDS, start=out / "start"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

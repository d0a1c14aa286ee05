"""What users of related projects have reported in public, tried here.

Right, or one sentence before the work.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import ldm_scheduler
from ld3m_min.run import distil

from .common import (
    command,
    eval_preset,
    folder_of,
    is_one_sentence,
    load,
    picture,
    settings,
    synthetic_set,
)

NAMES = ("cat", "dog", "fox")


# -- priors of the smallest kind, drawn here -------------------------------------------------------


def drawn(build):
    """Networks of diffusers and transformers draw from the global generator.

    Lend it a seed, and put it back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return build()


def vae(**changes):
    from diffusers import AutoencoderKL

    options = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "scaling_factor": 0.5,
    }
    return drawn(lambda: AutoencoderKL(**options | changes))


def codebook():
    from diffusers import VQModel

    options = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "latent_channels": 3,
        "num_vq_embeddings": 16,
        "vq_embed_dim": 3,
        "scaling_factor": 1.0,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return drawn(lambda: VQModel(**options))


def plain_unet(levels=2, **changes):
    from diffusers import UNet2DModel

    options = {
        "block_out_channels": (8,) * levels,
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "add_attention": False,
        "down_block_types": ("DownBlock2D",) * levels,
        "up_block_types": ("UpBlock2D",) * levels,
    }
    return drawn(lambda: UNet2DModel(**options | changes))


def text_unet(**changes):
    from diffusers import UNet2DConditionModel

    options = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "in_channels": 3,
        "out_channels": 3,
        "cross_attention_dim": 8,
        "sample_size": 16,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return drawn(lambda: UNet2DConditionModel(**options | changes))


def text_pipeline(folder, **tokenizer_options):
    """A Stable Diffusion pipeline: its tokenizer knows letters, its encoder has 24 positions."""
    pytest.importorskip("transformers")
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(i) for i in range(97, 123)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), **tokenizer_options
    )
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        eos_token_id=len(words) - 1,
        bos_token_id=len(words) - 2,
        pad_token_id=len(words) - 1,
    )
    return StableDiffusionPipeline(
        vae(),
        drawn(lambda: CLIPTextModel(config)),
        tokenizer,
        text_unet(),
        ldm_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def without(file, name):
    """Take one tensor out of a safetensors file."""
    from safetensors.torch import load_file, save_file

    tensors = {k: v.clone() for k, v in load_file(file).items()}
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})


# -- priors ----------------------------------------------------------------------------------------


def test_a_pipeline_that_lacks_a_weight_is_refused(tmp_path):
    """A folder of a diffusers pipeline from whose U-Net a tensor is missing (another version, a
    broken conversion): an error.

    Today only folders of `save_pretrained` are checked; here the tensor is whatever lay in memory,
    another at each load.
    """
    from diffusers import LDMPipeline
    from safetensors.torch import load_file

    LDMPipeline(codebook(), plain_unet(), ldm_scheduler()).save_pretrained(tmp_path / "whole")
    names = sorted(
        k
        for k in load_file(tmp_path / "whole" / "unet" / "diffusion_pytorch_model.safetensors")
        if k.endswith(".bias")
    )
    accepted = []
    for name in names[:6]:
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        without(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors", name)
        try:
            LatentDiffusionPrior.from_pretrained(tmp_path / name)
            accepted.append(name)
        except (ValueError, OSError):
            pass
    assert not accepted


def test_an_explicit_path_is_a_path(tmp_path, monkeypatch):
    """`--prior ./digits` is the user's folder, whatever ships under that name.

    His prior or an error, never another in silence.
    """
    mine = LatentDiffusionPrior.from_pretrained("digits")
    with torch.no_grad():
        for p in mine.denoiser.parameters():
            p.mul_(1.5)
    mine.save_pretrained(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    try:
        got = LatentDiffusionPrior.from_pretrained("./digits")
    except ValueError:
        return
    assert torch.equal(next(got.denoiser.parameters()), next(mine.denoiser.parameters()))


def test_a_network_that_is_given_its_guidance(tmp_path):
    """A U-Net distilled with its guidance as an input (latent consistency models).

    Given to it, or refused; not left out.
    """
    unet = text_unet(time_cond_proj_dim=16)
    try:
        prior = LatentDiffusionPrior(vae(), unet, ldm_scheduler(), torch.nn.Embedding(4, 8))
    except ValueError:
        return
    z, t = (
        torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.tensor([500]),
    )
    c = prior.class_conditioning(torch.tensor([1]))
    with torch.no_grad():
        before = prior.predict_noise(z, t, c)
        unet.time_embedding.cond_proj.weight.add_(10.0)
        assert not torch.equal(before, prior.predict_noise(z, t, c))


def test_a_prompt_without_a_place_for_the_name(tmp_path):
    """All classes with one and the same text.

    An error or a warning, since c then starts from the same for all of them.
    """
    pipeline = text_pipeline(tmp_path / "t", model_max_length=24)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            prior = LatentDiffusionPrior.from_diffusers(pipeline, classes=NAMES, prompt="a photo")
        except ValueError:
            return
    rows = prior.class_embedding.weight[:3]
    assert [w for w in said if issubclass(w.category, UserWarning)] or not torch.equal(
        rows[0], rows[1]
    )


def test_a_tokenizer_that_allows_more_than_the_encoder_has(tmp_path):
    """The smaller number counts.

    The tokenizer of latent-diffusion's text model allows 512 tokens, its encoder has 77 positions.
    """
    pipeline = text_pipeline(tmp_path / "t", model_max_length=512)
    prior = LatentDiffusionPrior.from_diffusers(pipeline, classes=NAMES)
    assert prior.condition_shape == (24, 8)


def test_a_set_of_a_text_conditioned_prior_decodes_again(tmp_path):
    """A set made with a folder of Stable Diffusion's kind says all that is needed.

    Its codes decode to its images.
    """
    text_pipeline(tmp_path / "t", model_max_length=24).save_pretrained(tmp_path / "sd")
    prior = LatentDiffusionPrior.from_pretrained(str(tmp_path / "sd"), classes=NAMES)
    data = load(folder_of(tmp_path / "pets", classes=NAMES))
    made = distil(settings(space="ld3m"), data=data, prior=prior, progress=False)
    assert torch.allclose(made.regenerate(), made.images(), atol=1e-5)


def test_an_autoencoder_that_is_taken_can_be_loaded_again(tmp_path):
    """With an autoencoder that a prior accepts, a saved set can be decoded.

    Here it is diffusers' tiny one.
    """
    from diffusers import AutoencoderTiny

    small = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
        "latent_channels": 3,
    }
    data = load(folder_of(tmp_path / "pets"))
    try:
        prior = LatentDiffusionPrior.from_diffusers(
            {"vae": drawn(lambda: AutoencoderTiny(**small))}
        )
    except (ValueError, TypeError):
        return
    made = distil(
        settings(space="autoencoder"), data=data, prior=prior, out=tmp_path / "run", progress=False
    )
    again = synthetic_set().load(tmp_path / "run" / "set").regenerate()
    assert torch.allclose(again, made.images(), atol=1e-5)


def test_a_prior_that_does_not_fit_is_refused_before_the_experts(tmp_path):
    """Latents of 24 x 24 do not halve five times.

    Said before the experts of MTT are trained, not after hours.
    """
    prior = LatentDiffusionPrior(vae(), plain_unet(levels=5), ldm_scheduler())
    data = load(folder_of(tmp_path / "pets", size=48), size=48)
    config = settings(space="ld3m", size=48, algorithm="MTT")
    config = replace(config, sampler=replace(config.sampler, guidance_scale=1.0))
    with pytest.raises((ValueError, RuntimeError)):
        distil(config, data=data, prior=prior, out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").rglob("expert-*"))


# -- data ------------------------------------------------------------------------------------------


def test_images_without_a_label_are_not_counted_as_wrong():
    """Label -1 is "unlabelled" in several data sets.

    Refused, or left out of the accuracy; not counted as a mistake.
    """
    data = load_data("digits", size=16)
    made = distil(settings(size=16, iterations=0), data=data, progress=False)
    labels = data.test.labels.clone()
    labels[::2] = -1
    try:
        marked = replace(data, test=replace(data.test, labels=labels))
        got = evaluate(made, marked, ("ConvNet",), config=eval_preset("smoke")).accuracies
    except (ValueError, IndexError):
        return
    rest = replace(
        data, test=replace(data.test, images=data.test.images[1::2], labels=data.test.labels[1::2])
    )
    assert got == evaluate(made, rest, ("ConvNet",), config=eval_preset("smoke")).accuracies


def test_splits_that_number_their_classes_differently():
    """Train counts 0 to 9, test 9 to 0.

    Refused, or brought into one order by name; not compared with wrong labels.
    """
    data = load_data("digits", size=16)
    made = distil(settings(size=16, iterations=0), data=data, progress=False)
    # the same labels, said otherwise
    turned = replace(data.test, labels=9 - data.test.labels, classes=data.classes[::-1])
    try:
        got = evaluate(
            made, replace(data, test=turned), ("ConvNet",), config=eval_preset("smoke")
        ).accuracies
    except ValueError:
        return
    assert got == evaluate(made, data, ("ConvNet",), config=eval_preset("smoke")).accuracies


def test_grey_images_in_memory(tmp_path):
    """Images of one channel (MNIST).

    Refused before the first iteration, or a set that is saved; not lost at the end.
    """
    data, done = load_data("digits", size=16), []
    try:

        def one(split):
            return replace(split, images=split.images[:, :1])

        grey = replace(
            data, train=one(data.train), validation=one(data.validation), test=one(data.test)
        )
        distil(
            settings(size=16), data=grey, out=tmp_path / "run", progress=False, callback=done.append
        )
    except (ValueError, TypeError) as error:
        assert not done, f"after {len(done)} iterations: {error}"
        return
    assert synthetic_set().load(tmp_path / "run" / "set").images().shape[1] in (1, 3)


def test_a_picture_changed_in_place_with_its_time_kept(tmp_path):
    """Uncompressed pictures of one size, times as a copy or an archive sets them.

    The cache gives the new pixels.
    """

    def write(seed):
        folder_of(tmp_path / "pets", n=6, seed=seed, suffix=".bmp")
        for file in (tmp_path / "pets").rglob("*.bmp"):
            os.utime(file, (1_000_000_000, 1_000_000_000))

    write(0)
    load(tmp_path / "pets", cache=tmp_path / "cache")
    write(5)
    got, want = load(tmp_path / "pets", cache=tmp_path / "cache"), load(tmp_path / "pets")
    assert torch.equal(got.train.images, want.train.images)


def test_the_same_picture_in_train_and_test(tmp_path):
    """Pictures that are in train/ and in test/ alike.

    Said aloud, since every accuracy is then too good.
    """
    folder_of(tmp_path / "pets" / "train", n=12)
    folder_of(tmp_path / "pets" / "test", n=12)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            load(tmp_path / "pets")
        except ValueError:
            return
    assert [w for w in said if issubclass(w.category, UserWarning)]


def test_a_run_inside_its_own_data(tmp_path):
    """`--out` within the data set.

    Refused before anything is written, or the same command works a second time.
    """
    pets = folder_of(tmp_path / "pets")
    words = (
        "distil",
        "--preset",
        "smoke",
        "--space",
        "pixel",
        "--dataset",
        pets,
        "--size",
        32,
        "--out",
        pets / "run",
    )
    env = {"LD3M_CACHE": str(tmp_path / "cache")}
    first = command(*words, env=env)
    if first.returncode:
        assert is_one_sentence(first) and not (pets / "run").exists()
        return
    assert command(*words, env=env).returncode == 0


# -- runs ------------------------------------------------------------------------------------------


def test_finished_experts_are_used_while_another_job_has_them(tmp_path):
    """Jobs of an array share one folder of finished experts.

    Reading them needs no hold on the folder.
    """
    from ld3m_min.experts import train_experts
    from ld3m_min.io.lock import locked

    data, config = load_data("digits", size=16), settings(size=16, algorithm="MTT")
    train_experts(config, data, tmp_path / "experts", progress=False)
    with locked(tmp_path / "experts"):
        again = train_experts(config, data, tmp_path / "experts", progress=False)
    assert len(again) == config.mtt.experts


def test_inner_batches_of_nothing(tmp_path):
    """MTT with inner batches of 0 images learns nothing, iteration after iteration.

    Refused with the configuration.
    """
    config = settings(size=16, algorithm="MTT")
    with pytest.raises(ValueError):
        distil(
            replace(config, mtt=replace(config.mtt, batch=0)),
            data=load_data("digits", size=16),
            progress=False,
        )


def test_training_that_diverged_is_no_accuracy():
    """Networks whose weights are not numbers label all as class 0.

    An error, a warning or NaN, not its share as accuracy.
    """
    data = load_data("digits", size=32)
    made = distil(settings(iterations=0), data=data, progress=False)
    protocol = eval_preset("smoke", epochs=30, lr={"default": 1e8})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            got = evaluate(made, data, ("AlexNet",), config=protocol).accuracies["AlexNet"]
        except (ValueError, FloatingPointError):
            return
    assert [
        w for w in said if issubclass(w.category, (UserWarning, RuntimeWarning))
    ] or not np.isfinite(got).all()


def test_how_often_is_saved_changes_no_result(tmp_path):
    """Another `checkpoint_every` touches no number: the run goes on."""
    data = load_data("digits", size=16)
    distil(settings(size=16), data=data, out=tmp_path / "run", progress=False)
    distil(settings(size=16, checkpoint_every=7), data=data, out=tmp_path / "run", progress=False)


def test_the_default_type_of_the_session_changes_no_draw():
    """A session with `torch.set_default_dtype(torch.float64)`.

    The same seed is the same forward noise, or an error.
    """
    config, data = settings(space="ld3m", iterations=0), load_data("digits", size=32)
    want = distil(config, data=data, progress=False).state["noise"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        got = distil(config, data=data, progress=False).state["noise"]
    except (ValueError, TypeError):
        return
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(got, want)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_the_warning_signal_of_a_cluster(tmp_path):
    """Slurm's `--signal=USR1@60`.

    Saved and left with a sentence, as after SIGTERM; not killed by it.
    """
    out = tmp_path / "run"
    words = [
        "distil",
        "--preset",
        "cpu",
        "--space",
        "pixel",
        "--iterations",
        "4000",
        "--out",
        str(out),
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "ld3m_min", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
    )
    try:
        until = time.monotonic() + 90
        while time.monotonic() < until and not list(out.glob("checkpoints/step-*")):
            time.sleep(0.1)
        run.send_signal(signal.SIGUSR1)
        run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode >= 0


def test_networks_that_the_images_are_too_small_for(tmp_path):
    """At 16 px the protocol's VGG11 cannot be built.

    Said before the other networks are trained, not hours later.
    """
    data = load_data("digits", size=16)
    made = distil(settings(size=16, iterations=0), data=data, progress=False)
    with pytest.raises(ValueError):
        evaluate(
            made,
            data,
            ("ConvNet", "ViT", "VGG11"),
            config=eval_preset("smoke"),
            out=tmp_path / "judged",
        )
    assert not list((tmp_path / "judged").glob("ViT*"))


@pytest.mark.parametrize("change", ["fewer", "double", "brighter"])
def test_what_is_saved_can_be_loaded(change, tmp_path):
    """A set that was thinned out, computed in double, or scaled in memory.

    Saved so that it loads, or refused when it is saved.
    """
    made = distil(settings(size=16), data=load_data("digits", size=16), progress=False)
    other = {
        "fewer": lambda: replace(made, pixels=made.pixels[1:], labels=made.labels[1:]),
        "double": lambda: replace(made, pixels=made.pixels.double()),
        "brighter": lambda: replace(made, pixels=made.pixels * 1.5),
    }[change]
    try:
        other().save(tmp_path / "set")
    except (ValueError, TypeError):
        return
    synthetic_set().load(tmp_path / "set")


# -- records ---------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_not_that_of_the_project_around(tmp_path):
    """Installed in the .venv of someone's own repository.

    A record never names that repository's commit as this package's.
    """
    import ld3m_min

    project = tmp_path / "project"
    site = project / ".venv" / "site-packages"
    shutil.copytree(
        Path(ld3m_min.__file__).parent,
        site / "ld3m_min",
        ignore=shutil.ignore_patterns("shipped", "__pycache__"),
    )
    (project / ".gitignore").write_text(".venv\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*words):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
            cwd=project,
            env=clean,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "mine")
    code = (
        "from ld3m_min.io.environment import environment\n"
        "print('COMMIT', environment()['commit'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "COMMIT" in done.stdout, done.stderr
    assert git("rev-parse", "--short=12", "HEAD") not in done.stdout


def imagenette(home):
    """A drawn tree of ImageNette below `home`, a few pictures a class."""
    from ld3m_min.data.subsets import SUBSETS

    subset = SUBSETS["imagenette"]
    for k, wnid in enumerate(subset.wnids):
        for top, name, n in (("train", f"{wnid}_", 4), ("val", f"ILSVRC2012_val_{k:02d}", 2)):
            folder = Path(home) / "imagenette" / top / wnid
            folder.mkdir(parents=True)
            for i in range(n):
                picture(100 * k + 10 * n + i).save(folder / f"{name}{i:04d}.png")
    return subset


def test_a_record_is_not_lost_to_a_hidden_file(tmp_path, monkeypatch):
    """.DS_Store in a class folder is passed over when the images are read.

    So also when, at the end, the record is written.
    """
    from ld3m_min.io.environment import files_of

    subset = imagenette(tmp_path / "data")
    (tmp_path / "data" / "imagenette" / "train" / subset.wnids[0] / ".DS_Store").write_bytes(
        b"\0\0\0\1Bud1"
    )
    monkeypatch.setenv("LD3M_DATA", str(tmp_path / "data"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load_data("imagenette", size=32, cache=False, progress=False)
    assert files_of(data) == "PNG, 32 x 32 px"


# -- notebooks -------------------------------------------------------------------------------------


def test_what_jupyter_keeps_beside_a_notebook_is_not_tested(tmp_path):
    """JupyterLab leaves `.ipynb_checkpoints/NAME-checkpoint.ipynb`.

    `pytest --nbval notebooks/` passes it over.
    """
    pytest.importorskip("nbval")
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": 1,
                "metadata": {},
                "outputs": [],
                "source": "1;",
            }
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    kept = tmp_path / "notebooks" / ".ipynb_checkpoints"
    kept.mkdir(parents=True)
    for file in (kept.parent / "01_one.ipynb", kept / "01_one-checkpoint.ipynb"):
        file.write_text(json.dumps(notebook))
    shutil.copy("pyproject.toml", tmp_path)
    for file in (Path("notebooks/conftest.py"), Path("conftest.py")):
        if file.exists():
            shutil.copy(file, tmp_path / file)
    words = [
        "-m",
        "pytest",
        "--nbval",
        "notebooks/",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "01_one.ipynb" in done.stdout and "checkpoint" not in done.stdout

"""Other members of each kind of fault: right, or one sentence before the work."""

import bz2
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld3m_min.config import DistilConfig, EvalConfig, MTTConfig
from ld3m_min.data import DataSplits, ImageDataset, archives, load_data
from ld3m_min.io import disk, files
from ld3m_min.io.devices import checked_device
from ld3m_min.io.digests import digest
from ld3m_min.io.memory import _container_limits
from ld3m_min.io.values import from_dict
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig

from .. import tiny_pipelines as tiny
from .common import command, folder_of, is_one_sentence, load, settings, synthetic_set

# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"ipc": np.int64(2)},
        {"lr": torch.tensor(0.5)},
        {"lr": "2e-2"},
        {"seed": np.uint8(3)},
        {"lr": 1},
        {"learn_z": np.bool_(True)},
        {"sampler": {"steps": 3}},
        {"prior": Path("a/b")},
        {"mtt": {"batch": np.int32(4)}},
    ],
)
def test_a_configuration_holds_plain_values_and_reads_back_equal(changes):
    config = replace(DistilConfig(), **changes)
    assert from_dict(DistilConfig, json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "make",
    [
        lambda: DistilConfig(lr=float("nan")),
        lambda: DistilConfig(lr=float("inf")),
        lambda: DistilConfig(ipc=True),
        lambda: DistilConfig(ipc=1.5),
        lambda: DistilConfig(lr="fast"),
        lambda: DistilConfig(momentum=1.0),
        lambda: DistilConfig(size=None),
        lambda: MTTConfig(batch=0),
        lambda: MTTConfig(lr=0.0),
        lambda: MTTConfig(experts=-1),
        lambda: EvalConfig(lr={"default": -1.0}),
        lambda: EvalConfig(ema=1.0),
        lambda: EvalConfig(weight_decay=-1e-4),
        lambda: SamplerConfig(steps=0),
        lambda: SamplerConfig(eta=2),
        lambda: SamplerConfig(guidance_scale=float("nan")),
        lambda: DistilConfig(mtt={"stepz": 1}),
        lambda: DistilConfig(prior=3),
        lambda: DistilConfig(learn_z=False, sampler=SamplerConfig(guidance_scale=0.0)),
    ],
)
def test_a_configuration_refuses_in_a_sentence(make):
    with pytest.raises(ValueError, match=r".{20}"):
        make()


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", "cuda:x"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=name.split(":")[0]):
        checked_device(name)


# -- data made in memory ---------------------------------------------------------------------------


def split(**changes):
    values = {
        "images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "classes": ("a", "b"),
        "split": "train",
    }
    return ImageDataset(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.zeros((4, 3, 8, 8), np.uint8)},
        {"images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)},
        {"images": torch.zeros(4, 3, 8, 9, dtype=torch.uint8)},
        {"images": torch.rand(4, 3, 8, 8)},
        {"labels": torch.tensor([0, 1, 0])},
        {"labels": torch.tensor([0.0, 1.0, 0.0, 1.0])},
        {"labels": torch.tensor([0, 1, 2, 1])},
        {"labels": torch.tensor([0, 1, -1, 1])},
        {"labels": torch.tensor([0, 0, 0, 0])},
        {"classes": ("a", "a")},
        {"classes": ("a", "")},
        {"classes": ()},
        {"classes": (1, 2)},
    ],
)
def test_a_split_refuses_in_a_sentence(changes):
    with pytest.raises((ValueError, TypeError), match=r".{20}"):
        split(**changes)


def test_splits_take_the_training_splits_order_of_classes():
    turned = split(labels=torch.tensor([1, 1, 0, 0]), classes=("b", "a"))
    data = DataSplits("x", split(), split(), turned, mean=(0.5,) * 3, std=(0.2,) * 3)
    assert data.test.classes == ("a", "b") and data.test.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"test": split(classes=("a", "c"))},
        {"mean": (0.5, 0.5)},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (float("nan"),) * 3},
        {"ids": (1,)},
        {"test": split(images=torch.zeros(4, 3, 16, 16, dtype=torch.uint8))},
    ],
)
def test_a_data_set_refuses_in_a_sentence(changes):
    with pytest.raises(ValueError, match=r".{20}"):
        DataSplits(
            **dict(
                name="x",
                train=split(),
                validation=split(),
                test=split(),
                mean=(0.5,) * 3,
                std=(0.2,) * 3,
            )
            | changes
        )


def test_a_digest_is_of_content_alone():
    a, b = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)), split()
    assert (
        digest(a)
        == digest(a.clone().permute(2, 1, 0).contiguous().permute(2, 1, 0))
        != digest(a.view(4, 3, 5))
        != digest(a.double())
    )
    before = b.digest
    assert before == b.to("cpu").digest == split().digest != split(classes=("b", "a")).digest
    b.images[0, 0, 0, 0] = 7  # written to in place: noticed
    assert b.digest != before


def test_a_set_of_another_prior_is_not_decoded(digits, tiny_prior):
    made = distil(
        settings(space="ld3m", iterations=0), data=digits, prior=tiny_prior, progress=False
    )
    assert torch.equal(made.regenerate(tiny_prior), made.images())
    with torch.no_grad():
        next(tiny_prior.denoiser.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="another prior than this one"):
        made.regenerate(tiny_prior)


def test_more_iterations_go_on_and_fewer_are_refused(digits, tmp_path):
    whole = distil(settings(iterations=4), data=digits, progress=False)
    distil(settings(iterations=2), data=digits, out=tmp_path, progress=False)
    longer = distil(settings(iterations=4), data=digits, out=tmp_path, progress=False)
    assert torch.equal(longer.images(), whole.images()) and len(longer.history) == 4
    for fewer in (3, 0):
        with pytest.raises(
            ValueError, match=f"a run of 4 iterations, more than the {fewer} asked for"
        ):
            distil(settings(iterations=fewer), data=digits, out=tmp_path, progress=False)
    assert torch.equal(synthetic_set().load(tmp_path / "set").images(), longer.images())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_where_a_session_has_them_off(digits, mode):
    want = distil(settings(), data=digits, progress=False)
    with mode():
        assert torch.equal(distil(settings(), data=digits, progress=False).images(), want.images())


# -- folders and archives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes", [("boat", "train"), ("test", "train"), ("test", "train", "val"), ("val", "van")]
)
def test_classes_with_the_names_of_splits(tmp_path, classes):
    assert load(folder_of(tmp_path / "x", classes=classes)).classes == classes


def test_grey_of_12_bits_in_a_file_of_16(tmp_path):
    folder = folder_of(tmp_path / "pets")
    Image.fromarray(np.full((32, 32), 4095, np.uint16)).save(folder / "apple" / "bright.png")
    data = load(folder)
    assert any(
        bool((x == 255).all())
        for s in ("train", "validation", "test")
        for x in data.split(s).images
    )


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_lock_that_is_not_ours(digits, tmp_path, kind):
    (tmp_path / "mine").write_text("mine")
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    {
        "file": lambda: lock.write_text("mine"),
        "link": lambda: lock.symlink_to(tmp_path / "mine"),
        "folder": lock.mkdir,
    }[kind]()
    try:
        distil(settings(), data=digits, out=tmp_path / "run", progress=False)
    except OSError as error:
        assert kind != "file" and "cannot work in" in str(error)
    assert (tmp_path / "mine").read_text() == "mine" and (
        kind != "file" or lock.read_text() == "mine"
    )


def test_a_file_system_without_locks_is_said(digits, tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"):
        distil(settings(), data=digits, out=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "set" / "set.json").exists()


@pytest.mark.parametrize(
    "place", ["notes.txt", "images/000/mine.png", ".git/config", "prior/mine.json"]
)
def test_foreign_files_at_any_depth_are_kept(digits, tmp_path, place):
    made = distil(settings(), data=digits, progress=False)
    made.save(tmp_path / "set")
    made.save(tmp_path / "set")  # its own it replaces
    mine = tmp_path / "set" / place
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        made.save(tmp_path / "set")
    assert mine.read_text() == "mine"


FOREIGN = ["set.json", "thesis.txt"]


@pytest.mark.parametrize(
    "index",
    [
        {"files": FOREIGN},
        {"format": "ld3m_min synthetic set", "version": 2, "files": FOREIGN},
        files.signed({"format": "another", "version": 2, "files": FOREIGN}),
        files.signed({"format": "ld3m_min synthetic set", "version": 2, "files": FOREIGN}),
    ],
    ids=["foreign", "unsigned", "another format", "signed"],
)
def test_an_index_of_something_else_gives_nothing_away(digits, tmp_path, index):
    (tmp_path / "mine").mkdir()
    files.write_json(tmp_path / "mine" / "set.json", index)
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files .*thesis\.txt"):
        distil(settings(iterations=0), data=digits, progress=False).save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_set_of_the_first_version_is_still_replaced(digits, tmp_path):
    made = distil(settings(iterations=0), data=digits, progress=False)
    made.save(tmp_path / "set")
    index = files.read_json(tmp_path / "set" / "set.json")
    old = {k: v for k, v in index.items() if k not in ("files", "checksum")} | {"version": 1}
    files.write_json(tmp_path / "set" / "set.json", old)
    (tmp_path / "set" / "SHA256SUMS").unlink()  # it had none
    made.save(tmp_path / "set")
    assert files.read_json(tmp_path / "set" / "set.json") == index


def test_a_set_whose_index_is_damaged_is_not_replaced(digits, tmp_path):
    made = distil(settings(iterations=0), data=digits, progress=False)
    made.save(tmp_path / "set")
    index = files.read_json(tmp_path / "set" / "set.json")
    files.write_json(tmp_path / "set" / "set.json", index | {"history": [1]})
    with pytest.raises(ValueError, match=r"its set\.json is damaged or not a set's"):
        made.save(tmp_path / "set")


def test_a_folder_beside_a_set_is_nobodys_business(digits, tmp_path):
    (tmp_path / ".old-set").mkdir()
    (tmp_path / ".old-set" / "mine").write_text("mine")
    for _ in range(2):
        distil(settings(iterations=0), data=digits, progress=False).save(tmp_path / "set")
    assert (tmp_path / ".old-set" / "mine").read_text() == "mine"


def test_litter_of_a_dead_process_goes_and_that_of_a_living_one_stays(tmp_path):
    dead, living = (tmp_path / f".tmp-{c * 32}-x" for c in "ab")
    dead.write_text("half")
    with living.open("w") as file:
        disk.hold(file.fileno())
        files.write_bytes(tmp_path / "new", b"new")
        assert not dead.exists() and living.exists() and (tmp_path / ".tmp-mine").write_text("mine")
    files.write_bytes(tmp_path / "new", b"newer")
    assert (
        not living.exists()
        and (tmp_path / ".tmp-mine").exists()
        and (tmp_path / "new").read_bytes() == b"newer"
    )


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "set.json")
    with pytest.raises(ValueError, match="no ordinary file"):
        synthetic_set().load(tmp_path)


def packed(folder, compress=lambda data: data, cut=None, damage=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=folder.name)
    content = bytearray(compress(buffer.getvalue()[:cut]))
    if damage is not None:
        content[damage] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "suffix, compress", [(".tar.bz2", bz2.compress), (".tar.xz", lzma.compress)]
)
def test_a_damaged_archive_names_itself(tmp_path, suffix, compress):
    (tmp_path / f"pets{suffix}").write_bytes(
        packed(folder_of(tmp_path / "pets"), compress, damage=-30)
    )
    with pytest.raises(
        ValueError, match=f"pets{suffix} is not an archive that can be read, or damaged"
    ):
        load(tmp_path / f"pets{suffix}")


def test_a_large_file_that_is_called_a_picture_is_none(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / "apple" / "zeros.png").write_bytes(bytes(3 * 2**20))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for f in folder.rglob("*.png"):
            file.write(f, f.relative_to(tmp_path))
    with pytest.raises(
        ValueError, match=r"zeros\.png in the archive is called a picture and is none"
    ):
        load(tmp_path / "pets.zip")
    with pytest.raises(ValueError, match="more than any picture has"):
        archives.unpack(
            tmp_path / "pets.zip", tmp_path / "into", limits=archives.Limits(member=2**20)
        )


def test_names_from_elsewhere_are_no_markup_in_a_card(tmp_path):
    made = distil(
        settings(),
        data=load(folder_of(tmp_path / "pets"), name="<script>x</script> # *a*"),
        progress=False,
    )
    made.save(tmp_path / "set")
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in card and "&lt;script&gt;" in card


def test_a_thousand_classes_sort_as_their_labels():
    labels = torch.arange(1001)
    made = synthetic_set()(torch.zeros(1001, 3, 2, 2), labels, tuple(map(str, range(1001))), {}, {})
    assert made.ipc == 1 and f"{7:0{max(3, len(str(len(made.classes) - 1)))}d}" == "0007"


# -- priors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, centre, spread",
    [
        ({"shift_factor": 0.25}, [0.25] * 3, [1.0] * 3),
        (
            {"latents_mean": [0.1, -0.2, 0.3], "latents_std": [0.5, 1.5, 2.0]},
            [0.1, -0.2, 0.3],
            [0.5, 1.5, 2.0],
        ),
    ],
)
def test_latents_as_their_pipeline_has_them(changes, centre, spread, tmp_path):
    """(latent - centre) * factor / spread into the denoiser, and back.

    Saved, loaded and run by another backend alike.
    """
    from ld3m_min.backprop import Plan, decode_with_plan

    vae = tiny.autoencoder("AutoencoderKL", scaling_factor=0.5, **changes)
    prior = LatentDiffusionPrior(vae, None, None)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = vae.encode(2 * images - 1).latent_dist.mode()
        centre, spread = (torch.tensor(x).view(1, -1, 1, 1) for x in (centre, spread))
        assert torch.allclose(prior.encode(images), (raw - centre) * 0.5 / spread, atol=1e-6)
        assert torch.allclose(
            prior.decode(prior.encode(images)),
            ((vae.decode(raw).sample + 1) / 2).clamp(0, 1),
            atol=1e-5,
        )
        prior.save_pretrained(tmp_path / "prior")
        again = LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
        z = prior.encode(images)
        assert torch.equal(again.decode(z), prior.decode(z)) and again.digest == prior.digest
        assert torch.allclose(
            decode_with_plan(prior, z, Plan(channels_last=True)), prior.decode(z), atol=1e-5
        )


def test_a_schedule_given_by_alphas_cumprod():
    class Given:
        config = {"num_train_timesteps": 1000, "prediction_type": "epsilon"}  # noqa: RUF012
        alphas_cumprod = alphas_cumprod(ldm_scheduler())

    assert torch.allclose(alphas_cumprod(Given()), Given.alphas_cumprod, rtol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 2.5},
        {"beta_end": 2.0},
        {"beta_start": -0.1},
        {"beta_end": float("inf")},
        {"trained_betas": [0.1, float("nan")]},
        {"trained_betas": [0.1, 0.2]},
    ],
)
def test_impossible_schedules(changes):
    try:
        scheduler = ldm_scheduler(**changes)
    except (ValueError, TypeError, RuntimeError, IndexError):
        return  # diffusers' own
    with pytest.raises(ValueError, match="schedule"):
        LatentDiffusionPrior(tiny.autoencoder(), tiny.unet(), scheduler, torch.nn.Embedding(4, 8))


@pytest.mark.parametrize(
    "name", ["./nothing", "../nothing", "/nothing/there", "a/b/c", "~/nothing", Path("nothing")]
)
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("the hub was asked")
    )
    with pytest.raises(FileNotFoundError, match="never looked up on the hub"):
        LatentDiffusionPrior.from_pretrained(name)


def test_what_only_looks_like_a_prior(tiny_prior, tmp_path):
    (tmp_path / "one.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="a prior is a folder"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "one.safetensors")
    tiny_prior.save_pretrained(tmp_path / "prior")
    weights = tmp_path / "prior" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(ValueError, match="no ordinary file"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


def test_names_of_a_prior_fit_its_rows():
    parts = (tiny.autoencoder(), tiny.unet(), ldm_scheduler(), torch.nn.Embedding(4, 8))
    for classes in (("a", "b"), ("a", "b", "b"), ("a", "b", "c", "d")):
        with pytest.raises(ValueError, match="class names"):
            LatentDiffusionPrior(*parts, classes=classes)
    with pytest.raises(ValueError, match="autoencoder Identity is not supported"):
        LatentDiffusionPrior(torch.nn.Identity(), None, None)


# -- the command line and its limits ---------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("distil", "--ipc", "0"),
        ("distil", "--size", "0"),
        ("distil", "--lr", "nan"),
        ("distil", "--lr", "0"),
        ("distil", "--max-seconds", "-1"),
        ("distil", "--dataset", ""),
        ("distil", "--prior", " "),
        ("distil", "~nobody-of-that-name"),
        ("distil", "own", "--dataset", "~nobody-of-that-name"),
        ("distil", "smoke", "--dataset", "~nobody-of-that-name/photos"),
        ("distil", "smoke", "--prior", "~nobody-of-that-name/model", "--space", "autoencoder"),
        ("distil", "smoke", "--out=~nobody-of-that-name/run"),
        ("train-prior", "~nobody-of-that-name"),
        ("train-prior", "own", "--dataset", "~nobody-of-that-name"),
        ("select", "--out=~nobody-of-that-name/run"),
        ("experts", "--size", "0"),
        ("tune", "--iterations", "-1"),
        ("tune", "--repeats", "0"),
        ("plan", "--no-probe", "--memory", "nan"),
        ("table", "--max-seconds", "nan", "--missing"),
        ("train-prior", "--device", "cuda:7"),
        ("plan", "--ipc", "0", "--no-probe"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_one_sentence(words, tmp_path, warm_cli):
    code, output = warm_cli(words, tmp_path)
    assert code == 2 and output.strip() and "Traceback" not in output, output[-500:]


@pytest.fixture(scope="module")
def warm_cli():
    """The command line in this process: (words, folder) -> (exit code, what it printed)."""
    import contextlib

    from ld3m_min.__main__ import main

    def run(words, folder):
        before, said = sys.argv, io.StringIO()
        sys.argv = ["ld3m_min", *words]
        try:
            with (
                contextlib.chdir(folder),
                contextlib.redirect_stderr(said),
                contextlib.redirect_stdout(said),
            ):
                main()
        except SystemExit as left:
            return left.code or 0, said.getvalue()
        finally:
            sys.argv = before
        return 0, said.getvalue()

    return run


def test_a_bug_of_ours_shows_its_traceback(warm_cli, monkeypatch, tmp_path):
    from ld3m_min.commands import table

    def bug(*args, **kwargs):
        raise RuntimeError("a mistake of the authors")

    monkeypatch.setattr(table, "begin", bug)
    code, output = warm_cli(("table", "--missing"), tmp_path)
    assert (
        code == 1
        and "Traceback" in output
        and "a mistake of the authors" in output
        and "Please report it" in output
    )


def test_no_mistake_of_the_package_is_a_plain_exception():
    """Only the family of `errors` ends in one sentence.

    A plain ValueError would be taken for a bug.
    """
    import re

    root = Path(files.__file__).parent
    plain = [
        f"{f.name}: {m}"
        for f in root.rglob("*.py")
        for m in re.findall(
            r"raise (?:ValueError|RuntimeError|FloatingPointError)\(.*",
            f.read_text(encoding="utf-8"),
        )
    ]
    assert not plain


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_is_the_memory_there_is(tmp_path, version):
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text(
        "0::/job/step\n" if version == 2 else "5:cpu,memory:/job/step\n1:name=systemd:/x\n"
    )
    base = root if version == 2 else root / "memory"
    limit, used = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for folder, most in (
        (base / "job" / "step", "max" if version == 2 else str(2**63 - 4096)),
        (base / "job", str(10 * 2**30)),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(most)
        (folder / used).write_text(str(3 * 2**30))
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {2**30}\n")
    assert _container_limits(proc, root) == [8 * 2**30]


def test_training_that_diverged_is_nan_in_every_mean():
    from ld3m_min.evaluate import EvalResult
    from ld3m_min.experiments.records import as_result

    result = EvalResult({"ConvNet": (0.5, 0.6), "AlexNet": (float("nan"), 0.4)}, "test")
    assert np.isnan(result.mean()) and result.mean("ConvNet") == pytest.approx(0.55)
    record = {
        "accuracies": {"AlexNet": [None, 0.4]},
        "split": "test",
        "config": {"network": {"name": "ConvNet"}},
    }
    assert np.isnan(as_result(record).accuracies["AlexNet"][0])


@pytest.mark.parametrize(
    "number, times, code",
    [("SIGTERM", 2, 143), ("SIGINT", 2, 130), ("SIGUSR1", 1, 75), ("SIGHUP", 1, 129)],
)
def test_signals_once_or_twice_have_their_codes(number, times, code, tmp_path):
    script = (
        "import os, signal, sys\nfrom ld3m_min.io import stop as signals\nsignals.interrupt()\n"
        "try:\n    with signals.stoppable() as stop:\n"
        f"        for _ in range({times}): os.kill(os.getpid(), signal.{number})\n"
        "        stop.leave('all is saved')\n"
        "except signals.Interrupted as left:\n    print(left.code, left)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.stdout.startswith(f"{code} {dict(SIGINT='Ctrl-C').get(number, number)}"), (
        done.stdout + done.stderr
    )


def test_a_command_is_refused_before_its_data_is_read(tmp_path):
    done = command(
        "distil", "--device", "cuda:9", "--dataset", tmp_path / "nothing", "--out", tmp_path / "run"
    )
    assert is_one_sentence(done) and "cuda:9" in done.stderr and not (tmp_path / "run").exists()


def test_the_cache_without_a_home(monkeypatch):
    from ld3m_min.data.cache import cache_folder

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LD3M_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_folder().name == "ld3m_min"


def test_a_warning_of_twins_counts_them(tmp_path):
    folder_of(tmp_path / "pets" / "train", n=6)
    folder_of(tmp_path / "pets" / "test", n=3, seed=4)
    (tmp_path / "pets" / "test" / "apple" / "copy.png").write_bytes(
        (tmp_path / "pets" / "train" / "apple" / "000.png").read_bytes()
    )
    with pytest.warns(
        UserWarning,
        match="1 of 7 test images are among the training images too, e.g. apple/copy.png",
    ):
        load(tmp_path / "pets")
    (tmp_path / "pets" / "test" / "apple" / "copy.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "pets")
    assert load_data("digits").files is None

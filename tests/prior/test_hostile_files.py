"""Files from elsewhere.

Forged tensors, priors that want to run code, archives, paths that lead out, and random bytes.
"""

import io
import json
import os
import random
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save, save_file

from ld3m_min.config import DistilConfig, EvalConfig, to_dict
from ld3m_min.data import load_data
from ld3m_min.data.archives import Limits, unpack
from ld3m_min.data.glance import glance
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json, signed, write_json
from ld3m_min.io.values import from_dict
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior import weights as hub
from ld3m_min.run import distil, random_real
from ld3m_min.synthetic import SyntheticSet
from tests.faults import (
    CONFIG,
    REFUSALS,
    STATE,
    broken_pictures,
    forged,
    hostile_archives,
    malformed_safetensors,
    mutate,
    try_archives,
)

# -- tensors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", malformed_safetensors(STATE))
def test_a_forged_checkpoint_is_refused(tmp_path, name):
    """Its checksums are right: what is in it must be, too."""
    forged(tmp_path, malformed_safetensors(STATE)[name])
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole"):
        Checkpointer(tmp_path, CONFIG).load(like=STATE)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 1},
        {"schema": "2"},
        {"step": 2},
        {"step": "1"},
        {"step": None},
        {"notes": []},
        {"config": "x"},
        {"sha256": None},
        {"sha256": {}},
        {"sha256": {"state.safetensors": 3}},
    ],
)
def test_a_forged_manifest_is_refused(tmp_path, changes):
    forged(tmp_path, save(STATE), **changes)
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole"):
        Checkpointer(tmp_path, CONFIG).load(like=STATE)


@pytest.fixture(scope="module")
def real(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "set"
    random_real(preset("smoke"), data=digits).save(folder)
    return folder


def reseal(folder, data=None, **changes):
    """Give a set other tensors or fields, with checksums that fit."""
    import hashlib

    index = read_json(folder / "set.json")
    if data is not None:
        (folder / "set.safetensors").write_bytes(data)
        index["sha256"] = hashlib.sha256(data).hexdigest()
    write_json(folder / "set.json", signed(index | changes))


def test_forged_sets_are_refused(real, tmp_path):
    tensors = load_file(real / "set.safetensors")
    cases = malformed_safetensors({k: tensors[k] for k in ("images", "labels", "state.pixels")})
    cases |= {
        "images outside [0, 1]": save(tensors | {"images": tensors["images"] * 1.5}),
        "grey images": save(tensors | {"images": tensors["images"][:, :1].clone()}),
        "labels past the classes": save(tensors | {"labels": tensors["labels"] + 1}),
        "negative labels": save(tensors | {"labels": tensors["labels"] - 1}),
        "labels of another kind": save(tensors | {"labels": tensors["labels"].float()}),
        "labels of another shape": save(tensors | {"labels": tensors["labels"][None].clone()}),
        "a state that is no number": save(tensors | {"state.pixels": tensors["state.pixels"] / 0}),
        "a state of fewer images": save(
            tensors | {"state.pixels": tensors["state.pixels"][:-1].clone()}
        ),
        "a state of another space": save(
            {k: tensors[k] for k in ("images", "labels")} | {"state.Z": torch.ones(10, 1)}
        ),
    }
    for name, data in cases.items():
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        shutil.copytree(real, tmp_path / "set")
        reseal(tmp_path / "set", data)
        with pytest.raises(ValueError, match=r"set\.safetensors"):
            SyntheticSet.load(tmp_path / "set")
            pytest.fail(name)
    assert len(cases) == 40


def test_every_byte_of_a_set_counts(real, tmp_path):
    """A flipped byte in set.json or in the tensors is refused, or (in a blank) says the same."""
    whole = SyntheticSet.load(real)
    shutil.copytree(real, tmp_path / "set")
    tried = refused = 0
    for name in ("set.json", "set.safetensors"):
        data = (real / name).read_bytes()
        for i in range(0, len(data), max(1, len(data) // 60)):
            (tmp_path / "set" / name).write_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])
            tried += 1
            try:
                found = SyntheticSet.load(tmp_path / "set")
            except REFUSALS:
                refused += 1
            else:
                assert found.recipe == whole.recipe and torch.equal(found.images(), whole.images())
        (tmp_path / "set" / name).write_bytes(data)
    assert tried >= 120 and refused >= 0.9 * tried


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": "0123456789"},
        {"classes": []},
        {"classes": [1] * 10},
        {"recipe": []},
        {"recipe": {}},
        {"recipe": {"config": 1}},
        {"recipe": {"config": {"space": "gan"}}},
        {"history": {}},
        {"history": [1]},
        {"sha256": None},
        {"version": 3},
        {"format": "x"},
        {"recipe": {"config": {"space": "ld3m"}}},
        {"recipe": {"config": {"space": "ld3m"}, "prior": {"source": 1}}},
    ],
)
def test_a_forged_index_is_refused(real, tmp_path, changes):
    shutil.copytree(real, tmp_path / "set")
    reseal(tmp_path / "set", **changes)
    with pytest.raises(ValueError, match=r"set\.json"):
        SyntheticSet.load(tmp_path / "set")


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["../../elsewhere", "/etc", "runs/prior", "C:\\prior", "~/prior", "..", "digits/../../x", ""],
)
def test_a_set_does_not_lead_to_paths_of_its_maker(digits, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "prior").mkdir(parents=True)
    distil(preset("smoke", space="autoencoder", iterations=0), data=digits, progress=False).save(
        tmp_path / "set"
    )
    assert SyntheticSet.load(tmp_path / "set").recipe["prior"]["source"] == "digits"
    recipe = read_json(tmp_path / "set" / "set.json")["recipe"]
    reseal(tmp_path / "set", recipe=recipe | {"prior": {"source": source}})
    loaded = SyntheticSet.load(tmp_path / "set")
    with pytest.raises(ValueError, match=r"load it yourself, if you trust it"):
        loaded.regenerate()
    prior = LatentDiffusionPrior.from_pretrained("digits")
    assert torch.allclose(loaded.regenerate(prior), loaded.images(), atol=1e-6)


def test_shards_of_a_prior_lie_beside_their_index(tmp_path):
    shutil.copytree(hub.SHIPPED / "digits", tmp_path / "prior")
    for name in ("../vae/x.safetensors", "/etc/passwd", "a\\b", 3):
        index = {"weight_map": {"conv_in.weight": name}}
        write_json(
            tmp_path / "prior" / "unet" / "diffusion_pytorch_model.safetensors.index.json", index
        )
        with pytest.raises(ValueError, match="they must lie beside it"):
            LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


# -- priors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index, message",
    [
        ({"_class_name": ["evil", "Pipeline"]}, "code in the folder is never run"),
        ({"_class_name": "LDMPipeline", "unet": ["evil", "UNet"]}, "takes unet from 'evil'"),
        ({"_class_name": "LDMPipeline", "unet": ["os", "system"]}, "takes unet from 'os'"),
        ({"_class_name": "LDMPipeline", "unet": ["diffusers"]}, "takes unet from None"),
        ({"vae": "os.system"}, "expected one of"),
        ({"scheduler": "FlaxScheduler"}, "expected one of"),
        ({"classes": "abc"}, "must be a list of text"),
        ({"classes": [1, 2]}, "must be a list of text"),
        ({"null": "no"}, "true or false"),
        ({"conditional": 1}, "true or false"),
        ({"classes": ["a", "b"]}, "2 class names for a class embedding of 11 rows"),
        ({"_class_name": None}, "does not name the class"),
    ],
)
def test_what_a_priors_index_may_name(tmp_path, index, message):
    shutil.copytree(hub.SHIPPED / "digits", tmp_path / "prior")
    (tmp_path / "prior" / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    (tmp_path / "prior" / "unet" / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    write_json(
        tmp_path / "prior" / "model_index.json",
        read_json(tmp_path / "prior" / "model_index.json") | index,
    )
    with pytest.raises(ValueError, match=message):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "part",
    [
        "vae/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "class_embedding/model.safetensors",
    ],
)
def test_weights_of_a_prior_are_all_there_and_no_others(tmp_path, part):
    tensors, done = load_file(hub.SHIPPED / "digits" / part), 0
    for name, data in malformed_safetensors(tensors).items():
        if name in ("another dtype", "header of 99 MB") or (
            name == "integers" and "class" not in part
        ):
            continue  # a network casts what it reads
        shutil.rmtree(tmp_path / "prior", ignore_errors=True)
        shutil.copytree(hub.SHIPPED / "digits", tmp_path / "prior")
        (tmp_path / "prior" / part).write_bytes(data)
        with pytest.raises(REFUSALS):
            LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
            pytest.fail(name)
        done += 1
    assert done >= 28


def test_hostile_configurations_of_networks(tmp_path):
    shutil.copytree(hub.SHIPPED / "digits", tmp_path / "prior")
    file = tmp_path / "prior" / "vae" / "config.json"
    good = read_json(file)
    for changes in (
        {"block_out_channels": [-1]},
        {"block_out_channels": "x"},
        {"down_block_types": ["os.system"]},
        {"latent_channels": 10**12},
        {"scaling_factor": "1"},
        {"scaling_factor": float("nan")},
    ):
        file.write_text(json.dumps(good | changes))
        with pytest.raises(REFUSALS):
            LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


# -- the hub, by a stand-in ------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def the_hub(tmp_path, monkeypatch):
    """A snapshot in a cache, as the hub's library gives it; `asked` records what was asked for."""
    import huggingface_hub

    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / COMMIT
    shutil.copytree(hub.SHIPPED / "digits", snapshot)
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["revision"]))
        if name != "org/name":
            raise OSError("offline")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked, snapshot


def test_a_hub_id_is_pinned(the_hub):
    asked, snapshot = the_hub
    digest = hub.folder_digest(snapshot)
    for name, options, revision in (
        ("org/name", {}, None),
        ("org/name@v1", {}, "v1"),
        ("org/name", {"revision": "v2"}, "v2"),
        ("org/name@v1", {"revision": "v1"}, "v1"),
        ("org/name", {"sha256": digest.upper()}, None),
    ):
        prior = LatentDiffusionPrior.from_pretrained(name, **options)
        assert asked[-1] == ("org/name", revision) and prior.source == f"org/name@{COMMIT}"
    with pytest.raises(ValueError, match="pinned to 'v1', and revision='v2'"):
        LatentDiffusionPrior.from_pretrained("org/name@v1", revision="v2")
    with pytest.raises(ValueError, match="is for hub ids"):
        LatentDiffusionPrior.from_pretrained("digits", revision="v1")
    with pytest.raises(
        FileNotFoundError,
        match=r"neither shipped .*, nor a folder here, nor to be had .* \(OSError\)",
    ):
        LatentDiffusionPrior.from_pretrained("org/other")


def test_a_digest_holds_the_files(the_hub):
    _, snapshot = the_hub
    digest = hub.folder_digest(snapshot)
    file = snapshot / "vae" / "config.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(ValueError, match=rf"has the digest [0-9a-f]{{64}}, not {digest}"):
        LatentDiffusionPrior.from_pretrained("org/name", sha256=digest)
    changed = hub.folder_digest(snapshot)
    (snapshot / "README.md").write_text("a card may change")
    assert hub.folder_digest(snapshot) == changed != digest


def test_a_damaged_cache_of_the_hub_is_named(the_hub):
    _, snapshot = the_hub
    (snapshot / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model_index\.json does not exist"):
        LatentDiffusionPrior.from_pretrained("org/name")


def test_offline_is_honoured(monkeypatch):
    """With HF_HUB_OFFLINE no connection is tried, and the message says what to do."""
    import socket

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("the network was asked"))
    with pytest.raises(
        FileNotFoundError, match=r"nor to be had from the hub \(LocalEntryNotFoundError\)"
    ):
        LatentDiffusionPrior.from_pretrained("org/never-downloaded")


# -- archives --------------------------------------------------------------------------------------


def test_hostile_archives_are_refused_and_leave_nothing(tmp_path):
    assert try_archives(tmp_path) >= 50


def test_good_archives_are_data_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    for red, c in enumerate(("cat", "dog")):
        (tmp_path / "pets" / c).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (16, 16), (200 * red, 40 * i, 9)).save(
                tmp_path / "pets" / c / f"{i}.png"
            )
    whole = load_data(tmp_path / "pets", size=16, progress=False)
    for kind, top in (
        ("zip", None),
        ("zip", "pets"),
        ("tar", None),
        ("gztar", "pets"),
        ("xztar", None),
    ):
        file = shutil.make_archive(
            str(tmp_path / f"{kind}-{top}"), kind, tmp_path if top else tmp_path / "pets", top
        )
        data = load_data(file, size=16, progress=False)
        assert data.classes == whole.classes and torch.equal(data.train.images, whole.train.images)
        monkeypatch.setattr(
            "ld3m_min.data.archives._write", lambda *a: pytest.fail("unpacked twice")
        )
        load_data(file, size=16, progress=False)
        monkeypatch.undo()
        monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("top", ["pets/", "", ".pets/"])
def test_what_a_mac_packs_beside_the_images_is_passed_over(tmp_path, monkeypatch, top, packed):
    """Its zip repeats each file, as attributes of the same name under `__MACOSX`."""
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as file:
        for i, name in enumerate(f"{c}/{i}.png" for c in ("cat", "dog") for i in range(5)):
            picture = io.BytesIO()
            Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(picture, "PNG")
            file.writestr(top + name, picture.getvalue())
            path = Path(top + name)
            file.writestr(f"__MACOSX/{path.parent}/._{path.name}", b"\0\5\x16\7 attributes")
    source = tmp_path / "pets.zip"
    if not packed:
        shutil.unpack_archive(source, tmp_path / "unpacked")
        source = tmp_path / "unpacked" / top
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(source, size=16, progress=False).classes == ("cat", "dog")
        seen = glance(source)
    assert seen.classes == ("cat", "dog") and seen.files == 10


def test_limits_of_archives(tmp_path):
    file = shutil.make_archive(str(tmp_path / "set"), "tar", hub.SHIPPED / "digits")
    for limits in (Limits(files=3), Limits(total=1000), Limits(depth=1)):
        with pytest.raises(ValueError, match=r"set\.tar"):
            unpack(file, tmp_path / "into", limits=limits)
    assert unpack(file, tmp_path / "into").name == "set"


def test_no_room_for_an_archive(tmp_path, monkeypatch):
    file = shutil.make_archive(str(tmp_path / "set"), "tar", hub.SHIPPED / "digits")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="free some space, or name another folder in LD3M_CACHE"):
        unpack(file, tmp_path / "into")
    assert not [p for p in (tmp_path / "into").rglob("*") if p.is_file()]


# -- random bytes ----------------------------------------------------------------------------------


def test_mutated_pictures_are_read_or_named(tmp_path):
    tried, refused = broken_pictures(tmp_path, random.Random(0), 240)
    assert tried == 240 and 60 < refused < 240


LENGTH = int(os.environ.get("LD3M_FUZZ", "1"))  # `make soak` looks longer, and elsewhere each time
FUZZ = settings(deadline=None, derandomize="LD3M_FUZZ" not in os.environ, database=None)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8)
)
JSON = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def nearly_a_configuration(draw, kind, whole):
    """A valid configuration with some fields changed to anything, at any depth."""
    values = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        place = values
        while True:
            key = draw(st.sampled_from(sorted(place)) | st.text(max_size=5))
            if isinstance(place.get(key), dict) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(JSON)
            break
    return values


@settings(FUZZ, max_examples=300 * LENGTH)
@given(nearly_a_configuration(DistilConfig, to_dict(preset("smoke"))) | JSON)
def test_any_configuration_is_taken_or_refused(values):
    for kind in (DistilConfig, EvalConfig):
        try:
            config = from_dict(kind, values)
        except ValueError as error:
            assert str(error)
        else:
            assert from_dict(kind, to_dict(config)) == config


WHOLE = save(STATE)


@settings(FUZZ, max_examples=200 * LENGTH)
@given(
    st.binary(max_size=200) | st.randoms(use_true_random=False).map(lambda r: mutate(WHOLE, r)),
    st.booleans(),
    JSON,
)
def test_any_bytes_are_a_checkpoint_or_refused(data, honest, notes):
    """Random bytes, mutated checkpoints, with checksums that fit or not."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place)
        forged(
            folder,
            data,
            notes=notes,
            **({} if honest else {"sha256": {"state.safetensors": "0" * 64}}),
        )
        try:
            found = Checkpointer(folder, CONFIG).load(like=STATE)
        except ValueError:
            return
        assert honest and found.tensors.keys() == STATE.keys() and isinstance(found.notes, dict)


@settings(FUZZ, max_examples=200 * LENGTH)
@given(
    st.binary(max_size=100)
    | st.randoms(use_true_random=False).map(
        lambda r: mutate(
            json.dumps(
                signed({"schema": 2, "step": 1, "config": {}, "notes": {}, "sha256": {}})
            ).encode(),
            r,
        )
    )
)
def test_any_bytes_are_a_manifest_or_refused(data):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        forged(folder, WHOLE)
        (folder / "step-00000001" / "manifest.json").write_bytes(data)
        with pytest.raises(ValueError, match=r"no checkpoint .* is whole"):
            Checkpointer(folder, {}).load(like=STATE)


def test_the_malformed_list_is_long_enough(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert len(malformed_safetensors(STATE)) >= 30 and len(hostile_archives(tmp_path)) >= 50

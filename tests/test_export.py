"""A set goes to others: each format is read back with what others have, and names no machine."""

import hashlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import types
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from PIL import Image

from ld3m_min.commands import parsed
from ld3m_min.coresets import select
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.export import FORMATS
from ld3m_min.io.files import read_json
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import distil
from ld3m_min.synthetic import SyntheticSet

NAMES = ("a/b: 'c'", "Zürich 東京", *"23456789")  # what a folder or YAML might trip over
FILES = [f for f in FORMATS if f != "imagefolder"]


@pytest.fixture(scope="module")
def made(digits):
    """Two images a class after an iteration; two classes have odd names, the prior a path."""
    named = {s: replace(digits.split(s), classes=NAMES) for s in ("train", "validation", "test")}
    data = replace(digits, **named)
    config = preset("smoke", space="pixel", ipc=2, iterations=1)
    found = distil(config, data=data, progress=False)
    own = {**found.recipe["config"], "prior": str(Path.home() / "secret" / "prior")}
    return replace(found, recipe={**found.recipe, "config": own})


@pytest.fixture(scope="module")
def softened(made):
    """The same with soft labels."""
    soft = torch.full((len(made.labels), 10), 0.02)
    soft[torch.arange(len(made.labels)), made.labels] = 0.82
    return replace(made, soft_labels=soft)


@pytest.fixture(scope="module")
def pixels(made):
    """The images as files have them, (N, H, W, 3)."""
    return (made.images() * 255).round().byte().permute(0, 2, 3, 1).numpy()


# -- formats ---------------------------------------------------------------------------------------


def test_an_image_folder_is_read_with_pillow_and_json_alone(made, pixels, tmp_path):
    made.export(tmp_path / "set", "imagefolder", licence="CC-BY-4.0")
    lines = (tmp_path / "set" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["label"] for r in rows] == made.labels.tolist()
    assert [r["class"] for r in rows] == [NAMES[k] for k in made.labels.tolist()]
    for row, wanted in zip(rows, pixels, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "set" / row["file_name"])), wanted)
    folders = sorted(p.name for p in (tmp_path / "set" / "images").iterdir())
    assert folders == [f"{k:03d}" for k in range(10)]  # odd names are no folders
    again = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(again.images(), made.images()) and again.recipe["licence"] == "CC-BY-4.0"


def test_the_checksums_are_of_every_file(made, tmp_path):
    made.save(tmp_path / "set")
    said = (tmp_path / "set" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("  ", 1)[::-1] for line in said)
    there = {p.relative_to(tmp_path / "set").as_posix() for p in (tmp_path / "set").rglob("*.*")}
    assert set(listed) == there and "set.json" in listed and len(listed) == 24
    for name, value in listed.items():
        assert hashlib.sha256((tmp_path / "set" / name).read_bytes()).hexdigest() == value
    made.save(tmp_path / "set")  # its own list is no foreign file


def test_a_tar_has_three_files_for_each_image(made, pixels, tmp_path):
    made.export(tmp_path / "set.tar", "webdataset", licence="MIT")
    with tarfile.open(tmp_path / "set.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}
    assert list(content)[:3] == ["00000.png", "00000.cls", "00000.json"] and len(content) == 60
    for i, (wanted, label) in enumerate(zip(pixels, made.labels.tolist(), strict=True)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content[f"{i:05d}.png"]))), wanted)
        assert int(content[f"{i:05d}.cls"]) == label
        known = {"label": label, "class": NAMES[label], "licence": "MIT"}
        assert json.loads(content[f"{i:05d}.json"]) == known


def test_an_npz_needs_no_pickle(made, softened, pixels, tmp_path):
    softened.export(tmp_path / "set.npz", "npz")
    found = np.load(tmp_path / "set.npz", allow_pickle=False)
    assert found["images"].dtype == np.uint8 and np.array_equal(found["images"], pixels)
    assert found["labels"].tolist() == made.labels.tolist()
    assert tuple(found["classes"].tolist()) == NAMES
    assert np.allclose(found["soft_labels"].sum(1), 1) and len(found["mean"]) == 3
    said = json.loads(str(found["about"]))
    assert said["licence"] is None and said["derived_from"]["name"] == "digits"


@pytest.mark.parametrize("format", FILES)
def test_the_same_set_gives_the_same_file(made, format, tmp_path, monkeypatch):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    made.save(tmp_path / "set")
    made.export(tmp_path / "a", format)
    monkeypatch.setattr("time.time", lambda: 2e9)
    SyntheticSet.load(tmp_path / "set").export(tmp_path / "b", format)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_is_read_with_pandas(softened, pixels, tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd
    from pyarrow import parquet

    softened.export(tmp_path / "set.parquet", "parquet")
    frame = pd.read_parquet(tmp_path / "set.parquet")
    assert list(frame.columns) == ["image", "label", "class", "soft_label"]
    for row, wanted in zip(frame.image, pixels, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["bytes"]))), wanted)
    notes = parquet.read_schema(tmp_path / "set.parquet").metadata
    features = json.loads(notes[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list(NAMES), "_type": "ClassLabel"}


def test_what_is_written_as_a_table(softened, tmp_path, monkeypatch):
    """By a stand-in for pyarrow, which hands on what it is given."""
    kinds = {name: (lambda n: lambda *a: (n, *a))(name) for name in ("binary", "string", "int64")}
    arrow = types.ModuleType("pyarrow")
    arrow.__dict__.update(kinds, float32=lambda: "float32", list_=lambda x: ("list", x))
    arrow.struct = lambda fields: ("struct", fields)
    arrow.schema = lambda fields, metadata: (fields, metadata)
    arrow.array = lambda values, kind: values
    arrow.Table = SimpleNamespace(from_arrays=lambda arrays, schema: (arrays, schema))
    arrow.parquet = types.ModuleType("pyarrow.parquet")
    written = []
    arrow.parquet.write_table = lambda table, sink: (written.append(table), sink.write(b"PAR1"))
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", arrow.parquet)
    softened.export(tmp_path / "set.parquet", "parquet")
    ((arrays, (fields, notes)),) = written
    assert [name for name, _ in fields] == ["image", "label", "class", "soft_label"]
    assert [len(a) for a in arrays] == [20] * 4 and arrays[0][3]["path"] == "00003.png"
    features = json.loads(notes["huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert (tmp_path / "set.parquet").read_bytes() == b"PAR1"


def test_what_cannot_be_written_is_a_sentence(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'ld3m-min\[parquet\]'"):
        made.export(tmp_path / "set.parquet", "parquet")
    with pytest.raises(InputError, match="unknown format 'zip'; choose imagefolder"):
        made.export(tmp_path / "set.zip", "zip")
    with pytest.raises(InputError, match="is a folder; the format npz is one file"):
        made.export(tmp_path, "npz")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        made.export(tmp_path, "imagefolder")
    bare = SyntheticSet(made.pixels, made.labels, made.classes)
    with pytest.raises(InputError, match="recipe lacks config and normalisation"):
        bare.export(tmp_path / "bare", "imagefolder")
    bare.export(tmp_path / "bare.npz", "npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.npz", "mine.txt"]


def test_the_command_writes_what_is_asked_for(made, tmp_path, capsys):
    made.save(tmp_path / "set")
    words = ["export", str(tmp_path / "set"), "--format", "npz", "--out", str(tmp_path / "x.npz")]
    parsed(words)()
    assert "20 images as npz" in (said := capsys.readouterr().out) and "no licence is" in said
    parsed([*words, "--licence", "CC0-1.0"])()
    assert "licence: CC0-1.0" in capsys.readouterr().out


# -- what is in the place --------------------------------------------------------------------------


def files_of(folder):
    """Every file below a folder and its bytes."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("place", ["run/set", "run/set/images/x", "run", "link", "run/x/../set"])
@pytest.mark.parametrize("format", ["imagefolder", "npz"])
def test_an_export_never_takes_the_place_of_its_set(made, tmp_path, place, format):
    made.save(tmp_path / "run" / "set")
    (tmp_path / "run" / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run" / "set")
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="the folder of the set itself"):
        SyntheticSet.load(tmp_path / "run" / "set").export(tmp_path / place, format)
    assert files_of(tmp_path) == before


def test_an_export_replaces_an_export_and_no_other_set(made, digits, tmp_path, tiny_prior):
    other = distil(
        preset("smoke", space="autoencoder", iterations=0),
        data=digits,
        prior=tiny_prior,
        progress=False,
    )
    other.save(tmp_path / "codes")  # with its prior, the only copy
    made.save(tmp_path / "pixels")
    before = files_of(tmp_path)
    assert (tmp_path / "codes" / "prior").is_dir()
    for place in ("codes", "pixels"):
        with pytest.raises(InputError, match="holds a set that is no export"):
            made.export(tmp_path / place, "imagefolder")
        (tmp_path / place).rename(tmp_path / f".{place}.being-replaced-by-ld3m")  # as a kill leaves
        with pytest.raises(InputError, match="holds a set that is no export"):
            made.export(tmp_path / place, "imagefolder")
        (tmp_path / f".{place}.being-replaced-by-ld3m").rename(tmp_path / place)
    assert files_of(tmp_path) == before
    for licence in ("MIT", "CC0-1.0"):
        made.export(tmp_path / "out", "imagefolder", licence=licence)
    assert SyntheticSet.load(tmp_path / "out").recipe["licence"] == "CC0-1.0"


def foreign(file, format):
    """A user's own file of the same kind as a format's."""
    if format == "webdataset":
        with tarfile.open(file, "w") as tar:
            for name in ("00000.png", "00000.cls", "00000.json"):
                info = tarfile.TarInfo(name)
                info.size = 2
                tar.addfile(info, io.BytesIO(b"{}"))
    elif format == "npz":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("holiday.jpg", b"a beach")
    else:
        file.write_bytes(b"PAR1" + b"my table" + (8).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("format", FILES)
def test_a_file_of_the_users_is_not_replaced(made, format, tmp_path):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    foreign(tmp_path / "same-kind", format)
    (tmp_path / "text").write_text("years of work")
    (tmp_path / "empty").touch()
    for file in list(tmp_path.iterdir()):
        before = file.read_bytes()
        with pytest.raises(InputError, match=f"is there already and is no {format} of an export"):
            made.export(file, format)
        assert file.read_bytes() == before
    (tmp_path / "link").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "pipe")  # as /dev/null would be
    for odd in (tmp_path / "link", tmp_path / "pipe"):
        with pytest.raises(InputError, match="is no ordinary file"):
            made.export(odd, format)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()
    for licence in ("MIT", "CC0-1.0"):  # its own it replaces
        made.export(tmp_path / "new", format, licence=licence)
    assert b"CC0-1.0" in (tmp_path / "new").read_bytes() or format == "npz"


def test_a_table_is_known_without_pyarrow(tmp_path):
    from ld3m_min.export import _is_parquet

    foreign(tmp_path / "mine", "parquet")
    ours = b"PAR1" + b"rows" + b"..ld3m_min.." + (12).to_bytes(4, "little") + b"PAR1"
    for data, known in ((ours, True), (ours[:-1], False), (b"PAR1PAR1", False), (b"", False)):
        (tmp_path / "table").write_bytes(data)
        assert _is_parquet(tmp_path / "table") == known
    assert not _is_parquet(tmp_path / "mine")


# -- recipes ---------------------------------------------------------------------------------------

NOT_WHOLE = [
    ({"data": ["digits"]}, "recipe.data"),
    ({"prior": "digits"}, "recipe.prior"),
    ({"plan": [1]}, "recipe.plan"),
    ({"drawn": {"by": "me"}}, "recipe.drawn"),
    ({"selection": None}, "recipe.selection"),
    ({"normalisation": {"kind": "shared", "std": [1.0] * 3}}, "recipe.normalisation.mean"),
    ({"config": {"space": "pixel"}}, "recipe.config.algorithm"),
    ({"licence": 3}, "recipe.licence"),
]


@pytest.mark.parametrize("change, named", NOT_WHOLE)
def test_a_recipe_that_is_no_whole_one_is_a_sentence_at_every_door(made, change, named, tmp_path):
    odd = replace(made, recipe=made.recipe | change)
    for door in (odd.save, lambda place: odd.export(place, "imagefolder")):
        with pytest.raises(InputError, match=f"the set lacks {named}, or holds something else"):
            door(tmp_path / "set")
    assert not list(tmp_path.iterdir())
    from tests.prior.test_hostile_files import reseal

    made.save(tmp_path / "set")
    reseal(tmp_path / "set", recipe=read_json(tmp_path / "set" / "set.json")["recipe"] | change)
    with pytest.raises(InputError, match=rf"set\.json lacks {named}"):
        SyntheticSet.load(tmp_path / "set")


@pytest.mark.parametrize("name", ["dsa", "seed", "size", "dataset", "algorithm"])
def test_a_card_says_no_default_that_nobody_said(made, name, tmp_path):
    config = {k: v for k, v in made.recipe["config"].items() if k != name}
    with pytest.raises(InputError, match=rf"lacks recipe\.config\.{name}"):
        replace(made, recipe=made.recipe | {"config": config}).save(tmp_path / "set")


def test_an_array_file_takes_a_recipe_in_part_but_no_nonsense(made, tmp_path):
    bare = SyntheticSet(made.pixels, made.labels, made.classes, recipe={"data": {"name": "x"}})
    bare.export(tmp_path / "x.npz", "npz")
    for odd in ({"data": ["x"]}, {"normalisation": {"mean": "grey"}}, {"config": 3}):
        with pytest.raises(InputError, match="the set lacks recipe"):
            replace(bare, recipe=odd).export(tmp_path / "y.npz", "npz")
    with pytest.raises(InputError, match="can't be written as JSON"):
        replace(made, recipe=made.recipe | {"start": Path("x")}).save(tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


# -- the card --------------------------------------------------------------------------------------


def card_of(made, folder):
    made.save(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_head_says_how_the_files_are_loaded(softened, tmp_path):
    head, body = card_of(softened, tmp_path / "set")
    assert head["license"] == "unknown" and head["size_categories"] == ["n<1K"]
    image, label, name, soft = head["dataset_info"]["features"]
    names = label["dtype"]["class_label"]["names"]
    assert [names[str(k)] for k in range(10)] == list(NAMES) and soft["name"] == "soft_label"
    assert (image["dtype"], name["name"]) == ("image", "class")
    lines = (tmp_path / "set" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(json.loads(lines[0])) == {"file_name", "label", "class", "soft_label"}
    assert "licence of these images is not stated. The images derive from those of digits" in body


@pytest.mark.parametrize(
    "licence, head",
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("mine: # ask me\n- no", {"license": "other", "license_name": "mine: # ask me\n- no"}),
    ],
)
def test_a_licence_is_in_the_head_and_in_words(made, licence, head, tmp_path):
    found, body = card_of(made.with_licence(licence), tmp_path / "set")
    assert head.items() <= found.items()
    assert "Licence: " in body and "not stated" not in body
    with pytest.raises(InputError, match="an empty licence"):
        made.with_licence(" ")


def test_measured_accuracies_are_in_the_card(made, tmp_path):
    values = {"ConvNet": (0.5, 0.625, float("nan")), "ViT": (0.25,)}
    noted = made.with_evaluation(values, data="digits", split="test")
    _, body = card_of(noted, tmp_path / "set")
    assert "| ConvNet | 50.0, 62.5 |" in body and "tested on digits (test split)" in body
    assert SyntheticSet.load(tmp_path / "set").recipe["evaluation"]["accuracies"]["ViT"] == [0.25]
    assert "## Accuracy" not in card_of(made, tmp_path / "other")[1]
    lost = {"ConvNet": (float("nan"),), "ViT": (0.25,)}
    assert (
        "ConvNet"
        not in made.with_evaluation(lost, data="x", split="test").recipe["evaluation"]["accuracies"]
    )
    with pytest.raises(InputError, match="every training diverged"):
        made.with_evaluation({"ConvNet": (float("nan"),)}, data="digits", split="test")


def snippet_of(made, folder):
    """The card's code."""
    _, body = card_of(made, folder)
    (found,) = re.findall(r"```python\n(.*?)```", body, re.S)
    assert len(found.splitlines()) == 6  # an import, and five
    return found


def test_the_cards_five_lines_train_without_this_package(made, tmp_path):
    before = "import sys\nsys.modules['ld3m_min'] = None\n"
    after = "print((net(x).argmax(1) == made['labels']).float().mean().item())\n"
    code = (
        before + "import torch; torch.manual_seed(0)\n" + snippet_of(made, tmp_path / "set") + after
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path / "set", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.5  # a tenth by chance


def test_the_cards_five_lines_take_soft_labels(softened, tmp_path, monkeypatch):
    code = snippet_of(softened, tmp_path / "set").replace("range(300)", "range(3)")
    monkeypatch.chdir(tmp_path / "set")
    found = {}
    exec(code, found)
    assert torch.equal(found["y"], softened.soft_labels)


def test_soft_labels_are_probabilities_and_stay(softened, tmp_path):
    softened.save(tmp_path / "set")
    assert torch.equal(SyntheticSet.load(tmp_path / "set").soft_labels, softened.soft_labels)
    for wrong in (softened.soft_labels[:, :3], softened.soft_labels * 2, -softened.soft_labels):
        with pytest.raises(InputError, match="probabilities that add up to 1"):
            replace(softened, soft_labels=wrong)


def test_an_evaluation_can_be_noted_in_the_set(digits, tmp_path, capsys):
    distil(preset("smoke", space="pixel", iterations=1), data=digits, progress=False).save(
        tmp_path / "set"
    )
    words = ["evaluate", "smoke", str(tmp_path / "set"), "--architectures", "MLP", "--to-card"]
    parsed([*words, "--epochs", "1", "--repeats", "1"])()
    assert "MLP" in capsys.readouterr().out
    made = SyntheticSet.load(tmp_path / "set")
    (value,) = made.recipe["evaluation"]["accuracies"]["MLP"]
    config = replace(eval_preset("smoke", ipc=1, per_class=1), epochs=1, repeats=1)
    assert value == pytest.approx(evaluate(made, digits, ("MLP",), config=config).mean("MLP"))
    assert "| MLP |" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("odd", ["note", "link", "inside", "itself"])
def test_what_can_not_be_noted_is_refused_before_a_training(made, odd, tmp_path, monkeypatch):
    made.save(tmp_path / "set")
    words, match = ["evaluate", "smoke", str(tmp_path / "set"), "--to-card"], "holds other files"
    if odd == "note":
        (tmp_path / "set" / "mine.txt").write_text("the best so far")
    elif odd == "link":
        (tmp_path / "link").symlink_to(tmp_path / "set")
        words[2], match = str(tmp_path / "link"), "is a link"
    else:
        place = tmp_path / "set" / ("trainings" if odd == "inside" else "")
        words, match = [*words[:3], "--out", str(place)], "lies in the set's own folder"
    monkeypatch.setattr("ld3m_min.commands.evaluate.load_data", lambda *a, **k: pytest.fail("read"))
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=match):
        parsed(words)()
    assert files_of(tmp_path) == before


# -- the Hub ---------------------------------------------------------------------------------------


class Hub:
    """What is asked of the Hub's client, each call as the real one would take it."""

    def __init__(self, public=False, error=None):
        self.public, self.error, self.calls, self.files = public, error, [], {}
        self.held = [".gitattributes"]  # in a new repository

    def _called(self, name, args, kwargs):
        inspect.signature(getattr(HfApi, name)).bind(self, *args, **kwargs)
        self.calls.append((name, kwargs))
        if self.error:
            raise self.error

    def create_repo(self, *args, **kwargs):
        self._called("create_repo", args, kwargs)
        return SimpleNamespace(repo_id=f"me/{args[0].split('/')[-1]}")

    def repo_info(self, *args, **kwargs):
        self._called("repo_info", args, kwargs)
        return SimpleNamespace(private=not self.public)

    def list_repo_files(self, *args, **kwargs):
        self._called("list_repo_files", args, kwargs)
        return self.held

    def upload_folder(self, **kwargs):
        self._called("upload_folder", (), kwargs)
        root = Path(kwargs["folder_path"])
        self.files = {
            p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()
        }


@pytest.fixture
def hub(monkeypatch):
    """A hub in the place of the real one."""
    found = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token=None: found)
    return found


def test_a_push_is_private_and_holds_the_set_alone(made, hub, tmp_path, capsys):
    made.save(tmp_path / "set")
    parsed(["push", str(tmp_path / "set"), "me/digits-2", "--licence", "MIT"])()
    assert "you alone see it" in capsys.readouterr().out
    names = [name for name, _ in hub.calls]
    assert names == ["create_repo", "repo_info", "list_repo_files", "upload_folder"]
    assert hub.calls[0][1] == {"repo_type": "dataset", "private": True, "exist_ok": True}
    kinds = {Path(f).suffix for f in hub.files}
    assert kinds == {".png", ".md", ".jsonl", ".json", ".safetensors", ""}
    assert sum(f.endswith(".png") for f in hub.files) == 20
    assert b"license: mit" in hub.files["README.md"]


def test_no_path_of_the_machine_leaves_it(made, hub):
    notes = {"where": f"read from {Path.home()}/pets", "win": r"C:\Users\me\x", "up": "../pets"}
    prior = {"source": str(Path.home() / "secret" / "prior"), "digest": "0" * 64}
    told = replace(made, recipe={**made.recipe, "start": notes, "prior": prior})
    told.push_to_hub("digits-2")
    text = b"".join(data for name, data in hub.files.items() if not name.endswith(".png"))
    for secret in (str(Path.home()), str(Path.cwd()), "secret", r"Users\\me"):
        assert secret.encode() not in text, secret
    said = json.loads(hub.files["set.json"])["recipe"]
    assert said["prior"] == {"source": "not shared", "digest": "0" * 64}
    assert said["config"]["prior"] == "not shared"


@pytest.mark.parametrize(
    "licence",
    [
        "https://creativecommons.org/licenses/by/4.0/",
        "CC BY 4.0 / ODbL / see LICENSE",
        "./LICENSE.txt of the museum",
    ],
)
def test_words_that_look_like_paths_leave_as_they_are(made, hub, licence, tmp_path):
    prompts = {"by": "prompt", "prompts": ["a cat / a dog / a bird", "~/ of the sea"], "rows": [0]}
    notes = {"url": "https://example.org/tmp/a/b", "what": "on / off / both"}
    prior = {"source": "org/name", "classes": prompts}
    told = replace(made, recipe={**made.recipe, "start": notes, "prior": prior})
    told.push_to_hub("digits-2", licence=licence)
    said = json.loads(hub.files["set.json"])["recipe"]
    assert said["licence"] == licence and said["start"] == notes and said["prior"] == prior
    told.export(tmp_path / "set.npz", "npz", licence=licence)
    assert json.loads(str(np.load(tmp_path / "set.npz")["about"]))["licence"] == licence


def test_paths_leave_wherever_they_stand(made, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    notes = {
        "here": "runs/x",
        "share": r"\\host\disk\x",
        "other": "~ann/x",
        "file": "file:///tmp/x",
    }
    drawn = {"method": "d4m", "prior": {"source": "runs/x", "digest": "0"}}
    told = replace(made, recipe={**made.recipe, "start": notes, "drawn": drawn})
    told.push_to_hub("digits-2")
    said = json.loads(hub.files["set.json"])["recipe"]
    assert said["start"] == {"here": "x", "share": "x", "other": "x", "file": "file://.../x"}
    assert said["drawn"]["prior"] == {"source": "not shared", "digest": "0"}


def test_a_public_repository_is_not_filled_by_accident(made, hub):
    hub.public = True
    with pytest.raises(InputError, match="me/digits-2 is there already, and public; say --public"):
        made.push_to_hub("digits-2")
    assert not hub.files
    assert not made.push_to_hub("digits-2", private=False).private and hub.files


def test_who_sees_it_is_what_the_hub_says(made, hub, tmp_path, capsys):
    """A repository that was private stays private, whatever `--public` would make of a new one."""
    made.save(tmp_path / "set")
    parsed(["push", str(tmp_path / "set"), "me/digits-2", "--public"])()
    said = capsys.readouterr().out
    assert "you alone see it: it was private before" in said and "everybody" not in said
    assert made.push_to_hub("digits-2", private=False).private
    hub.public = True
    parsed(["push", str(tmp_path / "set"), "me/digits-2", "--public"])()
    assert "everybody sees it" in capsys.readouterr().out


def test_a_repository_of_something_else_is_not_filled(made, hub):
    for held in (["images/001.jpg"], ["set.json"], [".gitattributes", "data/train.parquet"]):
        hub.held = held
        with pytest.raises(InputError, match="me/x is there already and holds something else"):
            made.push_to_hub("me/x")
        assert not hub.files
    for held in ([], [".gitattributes", "README.md"], ["set.json", "SHA256SUMS", "LICENSE"]):
        hub.held, hub.files = held, {}
        made.push_to_hub("me/x")
        assert hub.files


def test_a_push_deletes_the_pictures_of_sets_alone(made, hub):
    from fnmatch import fnmatch

    made.push_to_hub("me/x")
    (patterns,) = (k["delete_patterns"] for name, k in hub.calls if name == "upload_folder")
    for name, goes in {
        "images/003/00012.png": True,
        "images/1003/123456.png": True,
        "images/003/mine.png": False,
        "images/beach.jpg": False,
        "set.json": False,
    }.items():
        assert any(fnmatch(name, p) for p in patterns) == goes, name


def test_real_images_are_not_uploaded_unasked(digits, hub):
    for real in (
        select(digits, 1, "random"),
        distil(preset("smoke", space="pixel", iterations=0), data=digits, progress=False),
    ):
        with pytest.raises(InputError, match="may not be yours to publish"):
            real.push_to_hub("me/real")
        assert not hub.calls
    real.push_to_hub("me/real", real_images=True)
    assert b"the real images that a distillation" in hub.files["README.md"]


@pytest.mark.parametrize("error", [ConnectionError("no route\nhf_abcDEF"), ValueError("hf_abcDEF")])
def test_a_hub_that_fails_is_a_sentence_without_a_token(made, hub, error):
    hub.error = error
    with pytest.raises(OSError, match="the Hub did not take the set") as said:
        made.push_to_hub("me/x", token="hf_abcDEF")
    assert "abcDEF" not in str(said.value) and "\n" not in str(said.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "me/x@main", "../x"])
def test_what_is_no_name_on_the_hub(made, hub, name):
    with pytest.raises(InputError, match="is no name on the Hub"):
        made.push_to_hub(name)
    assert not hub.calls

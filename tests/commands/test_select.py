"""`select` and `systems`, which have neither preset nor configuration."""

import io
import re
from contextlib import redirect_stdout
from importlib import import_module

import docstring_parser
import pytest
import torch
import yaml

from ld3m_min.commands import parsed
from ld3m_min.coresets import METHODS, select
from ld3m_min.errors import InputError
from ld3m_min.features import latent_features
from ld3m_min.synthetic import SyntheticSet
from ld3m_min.systems import SYSTEMS

COMMAND = import_module("ld3m_min.commands.select")


def printed(*words):
    """What `python -m ld3m_min WORDS` prints, and its exit code."""
    with redirect_stdout(io.StringIO()) as text:
        try:
            parsed(words)()
            code = 0
        except SystemExit as left:
            code = left.code
    return text.getvalue(), code


# systems


def test_every_system_is_listed_in_the_order_of_the_tables():
    lines = printed("systems")[0].splitlines()
    assert [line.split()[0] for line in lines] == ["system", *SYSTEMS]
    for line, system in zip(lines[1:], SYSTEMS.values(), strict=True):
        said = (system.label, system.how, system.section, system.learned, system.kept, system.cost)
        assert all(part in line for part in said)
    starts = {
        line.index(s.how, line.index(s.label) + len(s.label))
        for line, s in zip(lines[1:], SYSTEMS.values(), strict=True)
    }
    assert len(starts) == 1  # in columns


def test_the_list_in_markdown_is_a_table():
    lines = printed("systems", "--markdown")[0].splitlines()
    assert len(lines) == len(SYSTEMS) + 2 and len({line.count("|") for line in lines}) == 1
    assert set(lines[1]) == set("|:- ") and lines[2].startswith("| random | random real images |")


def test_systems_say_what_they_are():
    for name, system in SYSTEMS.items():
        assert system.label and system.kept and system.cost, name
        assert bool(system.learned) == (system.how == "learned"), name
        assert system.how != "chosen" or name in METHODS, name
    assert len({s.label for s in SYSTEMS.values()}) == len(SYSTEMS)


# select


@pytest.mark.parametrize("method", METHODS)
def test_a_selection_is_made_offline(digits, method, tmp_path):
    ipc = 1 if method == "class-mean" else 2
    words = ["select", "digits", "--method", method, "--ipc", str(ipc), "--seed", "5"]
    text, code = printed(*words, "--out", str(tmp_path / "o"))
    assert code == 0
    found, made = SyntheticSet.load(tmp_path / "o" / "set"), select(digits, ipc, method, seed=5)
    assert torch.equal(found.pixels, made.pixels)
    assert found.recipe["selection"] == made.recipe["selection"]
    kept = made.storage().smallest
    assert f"{len(made.labels)} images in {tmp_path / 'o' / 'set'}" in text
    assert f"{kept.per_class:,.0f} bytes a class as {kept.form}" in text


def test_what_is_selected_is_evaluated(tmp_path):
    printed("select", "--method", "webp", "--budget", "600", "--out", str(tmp_path))
    words = ("evaluate", "smoke", str(tmp_path / "set"), "--epochs", "1", "--repeats", "1")
    text, code = printed(*words, "--architectures", "ConvNet", "ViT")
    assert code == 0 and re.search(r"^unseen +\d+\.\d % +\(test split, 1 repeat\)$", text, re.M)
    alone, code = printed(*words, "--architectures", "ConvNet")
    assert code == 0 and "no unseen network is among them" in alone
    assert not re.search("^unseen", alone, re.M)


def test_settings_of_the_compression_are_options(tmp_path):
    words = ["--method", "jpeg", "--quality", "20", "--budget", "1500", "--order", "herding"]
    printed("select", *words, "--size", "16", "--out", str(tmp_path))
    said = SyntheticSet.load(tmp_path / "set").recipe["selection"]
    assert (said["quality"], said["budget"], said["order"]) == (20, 1500, "herding")
    assert SyntheticSet.load(tmp_path / "set").images().shape[-1] == 16


def test_images_are_compared_by_what_is_asked_for(digits, tiny_prior, tmp_path, monkeypatch):
    tiny_prior.save_pretrained(tmp_path / "prior")
    words = ["--features", "latents", "--prior", str(tmp_path / "prior")]
    printed("select", *words, "--ipc", "2", "--out", str(tmp_path / "o"))
    by_latents = latent_features(digits, tiny_prior)
    made = select(digits, 2, "herding", features=by_latents)
    found = SyntheticSet.load(tmp_path / "o" / "set").recipe["selection"]
    assert found["positions"] == made.recipe["selection"]["positions"]
    assert found["features"].startswith(by_latents.about)
    monkeypatch.setattr(COMMAND, "network_features", lambda data, **o: by_latents)
    printed("select", "--features", "network", "--ipc", "2", "--out", str(tmp_path / "n"))
    again = SyntheticSet.load(tmp_path / "n" / "set").recipe["selection"]
    assert again["positions"] == found["positions"]


def test_a_dry_run_says_the_options_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, code = printed("select", "imagenette", "--ipc", "3", "--device", "cuda:99", "--dry-run")
    said = yaml.safe_load(text)
    assert code == 0 and (said["dataset"], said["ipc"], said["budget"]) == ("imagenette", 3, None)
    assert not list(tmp_path.iterdir())


def test_the_help_says_what_each_option_is():
    text, code = printed("select", "--help")
    flat = "".join(c for c in text if not c.isspace() and c not in "│╭╮╰╯─")
    told = docstring_parser.parse(COMMAND.SelectOptions.__doc__).params
    assert code == 0 and len(told) == len(COMMAND.SelectOptions.__dataclass_fields__)
    for option in told:
        assert "".join(option.description.split()) in flat, option.arg_name
    assert all(f'"{method}"' in text for method in METHODS)


@pytest.mark.parametrize(
    "words, says",
    [
        ("--method herd", "--method='herd' is unknown; choose random, herding"),
        ("--method webp --quality 0", r"--quality must be in \[1, 100\], not 0"),
        ("--budget 0", "--budget must be at least 1, not 0"),
        ("--ipc 0", "at least 1 image per class, not ipc = 0"),
        ("--method class-mean --ipc 2", "class-mean has one image per class"),
        ("--device cuda:99", "cuda"),
        ("--method webp --budget 10", "and 10 are all that the class has"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(words, says, tmp_path):
    with pytest.raises(InputError, match=says) as refused:
        parsed(["select", *words.split(), "--out", str(tmp_path / "o")])()
    assert "\n" not in str(refused.value) and not (tmp_path / "o").exists()


def test_a_folder_with_something_else_stays(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        parsed(["select", "--out", str(tmp_path)])()

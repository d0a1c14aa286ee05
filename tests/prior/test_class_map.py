"""What the user says of the data's classes in a prior: every kind of file, and where it counts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ld3m_min.config import DistilConfig, NetworkConfig
from ld3m_min.data import load_data
from ld3m_min.io.files import read_json, write_json
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.class_map import ClassMap
from ld3m_min.prior.class_matching import match_classes
from ld3m_min.prior.loading import load_prior
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig
from ld3m_min.synthetic import SyntheticSet
from tests import tiny_pipelines


def written(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return ClassMap.read(folder / name)


def prior(classes=(), rows=None):
    n = (len(classes) if rows is None else rows) + 1
    return SimpleNamespace(
        classes=tuple(classes), has_null=True, class_embedding=torch.nn.Embedding(n, 2)
    )


def data(*classes, ids=()):
    return SimpleNamespace(classes=classes, ids=tuple(ids))


@pytest.mark.parametrize(
    "name, text",
    [
        ("map.yaml", "no: tench\n1: 207\n'a, b': a photo of {} things\n"),
        ("map.yml", "# mine\n'no': 'tench'\n'1': '207'\na, b: a photo of {} things"),
        ("map.json", '{"no": "tench", "1": 207, "a, b": "a photo of {} things"}'),
        ("map.csv", 'class,prior\nno,tench\n1,207\n"a, b",a photo of {} things\n'),
        ("map.csv", '\ufeffno,tench\r\n\r\n1, 207\r\n"a, b",a photo of {} things'),
        ("map.tsv", "no\ttench\n1\t207\na, b\ta photo of {} things\n"),
    ],
)
def test_every_kind_of_file_says_the_same(tmp_path, name, text):
    found = written(tmp_path, name, text)
    assert found.entries == {"no": "tench", "1": "207", "a, b": "a photo of {} things"}
    assert found and found.record == {"map": dict(found.entries)}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("map.yaml", "- a\n- b\n", "is no mapping"),
        ("map.yaml", "", "is no mapping"),
        ("map.yaml", "a: [1, 2]\n", "line 1: a class has one name or row"),
        ("map.yaml", "a: {b: c}\n", "line 1: a class has one"),
        ("map.yaml", "a: 'b\n", "is not yaml"),
        ("map.yaml", 'a: "\\UFFFFFFFF"\n', "is not yaml"),
        ("map.json", '{"a": ' + "[" * 5000, "is not yaml"),
        ("map.yaml", "a:\nb: c\n", "class 'a' has no value"),
        ("map.yaml", "a: b\na: c\n", "has the class 'a' twice"),
        ("map.csv", "a,b,c\n", "has 3 columns"),
        ("map.csv", "class,prior\n", "holds no entry"),
        ("map.csv", "a,\n", "class 'a' has no value"),
        ("map.txt", "a: b\n", "is no class map by its name"),
    ],
)
def test_what_is_no_class_map_is_refused(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        written(tmp_path, name, text)


def test_no_file_and_no_text(tmp_path):
    assert not ClassMap.read(None) and ClassMap.read(None, "a {}").record == {"prompt": "a {}"}
    with pytest.raises(FileNotFoundError, match="no class map"):
        ClassMap.read(tmp_path / "nowhere.yaml")
    (tmp_path / "map.csv").write_bytes(b"caf\xe9,1\n")
    with pytest.raises(ValueError, match="UTF-8"):
        ClassMap.read(tmp_path / "map.csv")


def test_entries_come_before_names_and_the_rest_is_known():
    said = ClassMap({"my dog": "hound", "wolf": "3"})
    found = match_classes(
        prior(("cat", "dog, hound", "fox", "bear")), data("my dog", "fox", "wolf"), said
    )
    assert (found.rows, found.by) == ((1, 2, 3), "map")
    assert found.known == ("dog, hound", "fox", "bear") and found.worth_saying
    assert found.record == {"by": "map", "rows": [1, 2, 3], "map": dict(said.entries)}
    assert "'my dog' -> 1 ('dog, hound')" in found.table()


def test_two_classes_may_have_one_row_and_ids_fill_in():
    both = match_classes(prior(("dog",)), data("a", "b"), ClassMap({"a": "dog", "b": "0"}))
    assert both.rows == (0, 0)
    ids = match_classes(
        prior(rows=1000), data("tench", "church", ids=(0, 497)), ClassMap({"church": "5"})
    )
    assert ids.rows == (0, 5)
    # a name that is a number is a name first
    assert match_classes(prior(("1", "0")), data("x", "0"), ClassMap({"x": "1"})).rows == (0, 1)


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"cow": "cat"}, "has 'cow', which the data don't; their classes are 'a', 'b'"),
        ({"a": "cat"}, "no entry for 'b'"),
        (
            {"a": "cat", "b": "bird"},
            "'bird' for 'b' is no class of the prior; it has names such as",
        ),
        ({"a": "cat", "b": "2"}, "rows 0 to 1"),
        ({"a": "cat", "b": "-1"}, "is no class of the prior"),
    ],
)
def test_entries_that_fit_nothing(entries, message):
    with pytest.raises(ValueError, match=message):
        match_classes(prior(("cat", "dog")), data("a", "b"), ClassMap(entries))


def test_a_name_of_several_classes_needs_its_row():
    with pytest.raises(ValueError, match="give one of its rows, 0, 1"):
        match_classes(prior(("crane, x", "crane, y")), data("a"), ClassMap({"a": "crane"}))


def test_a_prompt_is_for_text_alone():
    with pytest.raises(ValueError, match="leave --prompt out"):
        match_classes(prior(("a",)), data("a"), ClassMap({}, "a sketch of a {}"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The folder of a text-to-image pipeline."""
    folder = tmp_path_factory.mktemp("text")
    tiny_pipelines.pipeline("text", folder).save_pretrained(folder / "sd")
    return folder / "sd"


def test_prompts_are_a_template_and_the_map(text):
    said = ClassMap({"dog": "my dog rex"}, "a sketch of a {}")
    found = load_prior(text, classes=("cat", "dog"), said=said)
    assert found.prompts == ("a sketch of a cat", "my dog rex")
    plain = load_prior(text, classes=("cat", "dog"))
    rows = [p.class_conditioning(torch.arange(2)) for p in (found, plain)]
    assert not torch.equal(rows[0], rows[1])
    matching = match_classes(found, data("cat", "dog"), said)
    assert matching.by == "prompt" and "'dog' -> 1 ('my dog rex')" in matching.table()
    assert matching.record["prompts"] == ["a sketch of a cat", "my dog rex"]
    with pytest.raises(ValueError, match="load it with the same class map"):
        match_classes(plain, data("cat", "dog"), said)
    with pytest.raises(ValueError, match="stands for two classes"):
        load_prior(text, classes=("a", "b"), said=ClassMap({"a": "x", "b": "x"}))
    with pytest.raises(ValueError, match="no place for the class's name"):
        load_prior(text, classes=("a", "b"), said=ClassMap({}, "a dog"))


def test_names_are_for_text_alone_when_a_prior_is_loaded(tmp_path):
    tiny_pipelines.pipeline("transformer", tmp_path).save_pretrained(tmp_path / "dit")
    index = tmp_path / "dit" / "model_index.json"
    labels = {"id2label": {"0": "cat, tom", "1": "dog", "2": "fox"}}  # as the hub has them
    write_json(index, read_json(index) | labels)
    found = load_prior(tmp_path / "dit", classes=("fox",))  # a set of one of its classes
    assert found.classes == ("cat", "dog", "fox")


def test_an_autoencoders_own_folder_is_a_prior(tmp_path):
    vae = tiny_pipelines.autoencoder("AutoencoderKL")
    vae.save_pretrained(tmp_path / "vae")
    found = load_prior(tmp_path / "vae")
    assert found.denoiser is None and found.source == str(tmp_path / "vae")
    x = torch.full((1, 3, 16, 16), 0.25)
    assert torch.equal(found.encode(x), LatentDiffusionPrior.from_diffusers(vae).encode(x))


@pytest.fixture(scope="module")
def pair():
    """Two classes of drawn digits, with names that no prior knows."""
    return _renamed(load_data("digits"), 2)


def _renamed(whole, n):
    def part(split):
        keep = split.labels < n
        names = tuple(f"kind {k}" for k in range(n))
        return replace(split, images=split.images[keep], labels=split.labels[keep], classes=names)

    splits = {s: part(whole.split(s)) for s in ("train", "validation", "test")}
    return replace(whole, name="kinds", **splits)


CONFIG = DistilConfig(
    iterations=1,
    batch_real=2,
    network=NetworkConfig(width=8),
    sampler=SamplerConfig(steps=2),
    checkpoint_every=1,
)


def test_the_map_is_part_of_the_run(pair, tiny_prior, tmp_path, capsys):
    tiny_prior.save_pretrained(tmp_path / "prior")
    config = replace(CONFIG, prior=str(tmp_path / "prior"))
    said = ClassMap({"kind 0": "7", "kind 1": "row 3"})
    with pytest.raises(ValueError, match="'row 3' for 'kind 1' is no class"):
        distil(config, data=pair, out=tmp_path / "run", class_map=said)
    said = ClassMap({"kind 0": "7", "kind 1": "3"})
    made = distil(config, data=pair, out=tmp_path / "run", class_map=said)
    assert "'kind 0' -> 7 ('7')" in capsys.readouterr().err
    assert made.recipe["prior"]["classes"] == {
        "by": "map",
        "rows": [7, 3],
        "map": {"kind 0": "7", "kind 1": "3"},
    }
    loaded = SyntheticSet.load(tmp_path / "run" / "set")
    again = loaded.regenerate(load_prior(tmp_path / "prior"))
    assert torch.equal(again, made.images())
    other = ClassMap({"kind 0": "7", "kind 1": "4"})
    with pytest.raises(ValueError, match=r"class_map\.map\.kind 1: '3' -> '4'"):
        distil(replace(config, iterations=2), data=pair, out=tmp_path / "run", class_map=other)


def test_a_map_that_nothing_reads_is_refused(pair, tiny_prior):
    said = ClassMap({"kind 0": "7", "kind 1": "3"})
    for space in ("pixel", "autoencoder"):
        with pytest.raises(ValueError, match="nothing in space"):
            distil(replace(CONFIG, space=space), data=pair, prior=tiny_prior, class_map=said)


def test_a_run_through_text_says_its_prompts(pair, text, tmp_path):
    config = replace(CONFIG, prior=str(text), iterations=0)
    made = distil(config, data=pair, out=tmp_path, class_map=ClassMap({}, "a {}"), progress=False)
    assert made.recipe["prior"]["classes"]["prompts"] == ["a kind 0", "a kind 1"]
    again = SyntheticSet.load(tmp_path / "set").regenerate(load_prior(text, classes=made.classes))
    assert torch.equal(again, made.images())


def test_a_checkpoint_beside_its_yaml_is_a_prior(tmp_path, monkeypatch):
    taken = []

    def convert(checkpoint, config, **options):
        taken.append((checkpoint, config))
        return LatentDiffusionPrior(tiny_pipelines.autoencoder("AutoencoderKL"), None, None)

    monkeypatch.setattr(LatentDiffusionPrior, "from_compvis", staticmethod(convert))
    file = tmp_path / "cin256.safetensors"
    file.write_bytes(b"weights")
    with pytest.raises(ValueError, match="with its yaml beside it under the same name"):
        load_prior(file)
    (tmp_path / "cin256.yaml").write_text("model: {}")
    assert load_prior(file).source == str(file)
    assert taken == [(file, tmp_path / "cin256.yaml")]

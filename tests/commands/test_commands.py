"""The command line comes from the configurations: every field an option, every docstring a help."""

import dataclasses
import inspect
import io
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import docstring_parser
import pytest
import torch
import yaml

from ld3m_min.backprop import AUTO, PLANS
from ld3m_min.commands import COMMANDS, old_names, parsed, plan, rate_search
from ld3m_min.commands.fields import option, paths, with_options
from ld3m_min.config import DistilConfig, EvalConfig, nested_fields, to_dict
from ld3m_min.errors import InputError
from ld3m_min.experiments.rate_search import PAIRS
from ld3m_min.io.values import from_dict, hints_of
from ld3m_min.presets import PRESETS, eval_preset, preset
from ld3m_min.prior.architecture import PriorConfig
from ld3m_min.prior.classifier import ClassifierConfig
from ld3m_min.prior.fine_tuning_config import FineTuneConfig
from ld3m_min.prior.presets import prior_preset
from ld3m_min.residual import Residual
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig

MODULES = {name: import_module(f"ld3m_min.commands.{name.replace('-', '_')}") for name in COMMANDS}
# those with a configuration
CONFIGURED = [n for n in COMMANDS if hasattr(MODULES[n].COMMAND, "config")]
DISTILLING = ["distil", "experts", "plan", "rate-search"]  # those with a DistilConfig
KINDS = {"evaluate": EvalConfig, "train-prior": PriorConfig, "fine-tune": FineTuneConfig}
EXAMPLE = (
    "cpu --sampler.steps 20 --sampler.guidance-scale 2 --sampler.residual.into mean "
    "--mtt.max-start-epoch 3"
)


def call(name, *words):
    """What a command line resolves to."""
    return MODULES[name].COMMAND.resolved(old_names.translated(name, words))


def printed(*words):
    """What `python -m ld3m_min WORDS` prints, and its exit code."""
    with redirect_stdout(io.StringIO()) as text:
        try:
            parsed(words)()
            code = 0
        except SystemExit as left:
            code = left.code
    return text.getvalue(), code


@pytest.fixture(scope="module")
def a_set(digits, tmp_path_factory):
    """The folder of a set with two images per class."""
    folder = tmp_path_factory.mktemp("set") / "set"
    config = preset("smoke", space="pixel", ipc=2, iterations=0)
    distil(config, data=digits, progress=False).save(folder)
    return folder


@pytest.fixture
def words_of(a_set):
    """The positional words that a command needs, after its preset."""
    return lambda name: [str(a_set)] if name == "evaluate" else []


# -- presets and fields


@pytest.mark.parametrize("name", DISTILLING)
def test_any_field_of_a_distillation_is_an_option(name):
    made = call(name, *EXAMPLE.split())
    plain = preset("cpu", algorithm={"plan": "DC", "experts": "MTT"}.get(name, "DM"))
    sampler = SamplerConfig(steps=20, guidance_scale=2.0, residual=Residual(into="mean"))
    assert made.config == replace(plain, sampler=sampler, mtt=replace(plain.mtt, max_start_epoch=3))
    assert made.preset == "cpu"


def test_any_field_of_an_evaluation_is_an_option(a_set):
    made = call("evaluate", "paper", str(a_set), "--epochs", "3", "--lr.ViT", "0.5")
    plain = eval_preset("paper", ipc=2, per_class=2)
    assert made.config == replace(plain, epochs=3, lr=plain.lr | {"ViT": 0.5})
    assert made.options.folder == a_set


def test_any_field_of_a_prior_is_an_option():
    words = [
        "imagenette-64",
        "--unet-steps",
        "7",
        "--snapshots",
        "3",
        "5",
        "--classifier.width",
        "8",
    ]
    plain = prior_preset("imagenette-64")
    assert call("train-prior", *words).config == replace(
        plain,
        unet_steps=7,
        snapshots=(3, 5),
        classifier=replace(plain.classifier, width=8),
    )
    assert call("train-prior", "--classifier.width", "8").config == replace(
        prior_preset("digits"), classifier=ClassifierConfig(width=8)
    )


def as_words(kind, values, before=""):
    """Every field of a dataclass as an option with its value; the walk is the test's own."""
    for field in dataclasses.fields(kind):
        value, path = values[field.name], "--" + before + field.name.replace("_", "-")
        if field.name in nested_fields(kind):
            inner = nested_fields(kind)[field.name]
            yield from as_words(inner, value or to_dict(inner()), path[2:] + ".")
        elif isinstance(value, bool):
            parts = path.rpartition(".") if "." in path else ("--", "", path[2:])
            yield [path] if value else [f"{parts[0]}{parts[1]}no-{parts[2]}"]
        elif isinstance(value, dict):
            yield from ([f"{path}.{key}", str(v)] for key, v in value.items())
        else:
            values_said = value if isinstance(value, (tuple, list)) else [value]
            yield [path, *map(str, values_said)]


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_field_is_an_option(name, words_of):
    kind = KINDS.get(name, DistilConfig)
    plain = to_dict(call(name, MODULES[name].COMMAND.preset, *words_of(name)).config)
    plain |= {k: "x" for k in ("about",) if plain.get(k) == ""}
    words = [w for said in as_words(kind, plain) for w in said]
    made = call(name, MODULES[name].COMMAND.preset, *words_of(name), *words)
    networks = {"classifier", "seen_by"} & plain.keys()  # None, until one of their fields is given
    want = plain | dict.fromkeys(networks, to_dict(ClassifierConfig()))
    assert made.given == want
    assert made.config == from_dict(kind, want)


def test_every_path_is_found():
    for kind in (DistilConfig, EvalConfig, PriorConfig):
        flat = [path for _, path in paths(kind)]
        assert len(flat) == len(set(flat))
        for owner, path in paths(kind):
            assert path.rpartition(".")[2] in hints_of(owner)


# -- the preset's rules


@pytest.mark.parametrize(
    "words, settings",
    [
        ("cpu --algorithm MTT", {"algorithm": "MTT"}),
        ("cpu --algorithm DC --space pixel", {"algorithm": "DC", "space": "pixel"}),
        ("cpu --ipc 10", {"ipc": 10}),
        ("cpu --ipc 10 --lr 3", {"ipc": 10, "lr": 3.0}),
        ("paper --size 256", {"size": 256}),
        ("nette --algorithm MTT --size 256 --seed 4", {"algorithm": "MTT", "size": 256, "seed": 4}),
        ("reference --algorithm DC", {"algorithm": "DC"}),
    ],
)
def test_a_preset_gives_what_belongs_to_the_fields(words, settings):
    name, *others = words.split()
    assert call("distil", name, *others).config == preset(name, **settings)


def test_the_evaluation_is_that_of_the_sets_images_per_class(digits, tmp_path):
    config = preset("smoke", space="pixel", ipc=10, iterations=0)
    distil(config, data=digits, progress=False).save(tmp_path / "set")
    assert call("evaluate", str(tmp_path / "set")).config == eval_preset("cpu", ipc=10)


def test_a_file_is_a_preset_with_changes_and_options_win(tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text("algorithm: MTT\nmomentum: 5e-1\nsampler:\n  steps: 4\n  eta: 1\n")
    made = call("distil", "cpu", "--config", str(file), "--sampler.steps", "7").config
    plain = preset("cpu", algorithm="MTT")
    assert made == replace(plain, sampler=replace(plain.sampler, steps=7, eta=1.0))


# -- files


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.parametrize("changes", ["", "changed"])
def test_a_dry_run_reads_back_equal(name, changes, words_of, tmp_path):
    others = {"train-prior": "imagenette-128-smoke", "fine-tune": "control-imagenette-64"}
    first = others.get(name, "smoke")
    more = {
        "evaluate": "--lr.ConvNet 0.3 --split validation",
        "train-prior": "--snapshots 1 --classifier.steps 3 --vae-lr 1e-9",
        "fine-tune": "--criteria --classifier.steps 3 --lr 1e-9",
    }.get(name, "--space autoencoder --plan.precision bfloat16 --mtt.lr-lr 1e-9 --ipc 3")
    words = [first, *words_of(name), *(more.split() if changes else [])]
    text, code = printed(name, *words, "--dry-run")
    assert code == 0
    file = tmp_path / "config.yml"
    file.write_text(text)
    again = call(name, MODULES[name].COMMAND.preset, *words_of(name), "--config", str(file))
    assert again.config == call(name, *words).config
    assert yaml.safe_load(text) == yaml.safe_load(yaml.safe_dump(to_dict(again.config)))


def test_a_dry_run_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("distil", "experts", "train-prior", "fine-tune", "rate-search", "plan"):
        assert printed(name, "--device", "cuda:99", "--dry-run")[1] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content, message",
    [
        ("stepz: 3", "mine.yml: unknown field stepz; known are dataset, size"),
        ("ipc: two", "--ipc must be a whole number, not 'two'"),
        ("algorithm: GAN", "algorithm='GAN' is unknown; choose DC, DM, MTT"),
        ("size: [1]", "--size must be a whole number"),
        ("sampler: 3", "mine.yml: sampler must be fields and their values, not 3"),
        ("sampler: null", "mine.yml: sampler must be fields and their values, not None"),
        ("sampler: {T: 3}", "mine.yml: sampler unknown field T; known are steps"),
        ("- 1", "mine.yml: must be fields and their values, not [1]"),
        ("", "mine.yml: must be fields and their values, not None"),
        ("a: [", "is not yaml"),
        ("dataset: 2024-13-01", "is not yaml: month must be in 1..12"),
        ("dataset: !!timestamp soon", "is not yaml"),
        ("size: " + "9" * 5000, "is not yaml"),
        ("dataset: " + "[" * 5000, "is not yaml"),
        ("sampler: {steps: 0}", "--sampler.steps must be at least 1, not 0"),
    ],
)
def test_a_file_that_cannot_be_is_a_sentence(content, message, tmp_path):
    file = tmp_path / "mine.yml"
    file.write_text(content)
    with pytest.raises(InputError) as refused:
        call("distil", "cpu", "--config", str(file), "--sampler.eta", "1")
    assert message in str(refused.value) and "\n" not in str(refused.value)


# -- names of before


@pytest.mark.parametrize(
    "old, new",
    [
        (
            "distil --preset smoke --algorithm DC --iterations 3",
            "distil smoke --algorithm DC --iterations 3",
        ),
        ("distil --preset=smoke", "distil smoke"),
        ("distil --lr 0.2 --preset smoke --size 64", "distil smoke --size 64 --lr 0.2"),
        ("distil --precision bfloat16 --prior x/y", "distil --plan.precision bfloat16 --prior x/y"),
        ("distil --dataset a/b --data-path c --split fastai --experts d", None),
        (
            "experts --preset smoke --size 64 --seed 3 --out e",
            "experts smoke --seed 3 --size 64 --out e",
        ),
        ("plan --steps 7 --size 64 --ipc 3 --precision bfloat16 --no-probe --memory 3", None),
        ("plan --steps=7", "plan cpu --sampler.steps 7"),
        (
            "train-prior --preset smoke --seed 3 --dtype bfloat16 --records r",
            "train-prior smoke --seed 3 --dtype bfloat16 --records r",
        ),
        ("rate-search --preset smoke --repeats 2 --only DM-pixel --max-seconds 4", None),
    ],
)
def test_names_of_before(old, new):
    name, *words = old.split()
    made = call(name, *words)
    if new is not None:
        assert made == call(name, *new.split()[1:])
    for k, word in enumerate(words):  # what is plainly an option of the run is there
        field = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and hasattr(made.options, field):
            value = getattr(made.options, field)
            assert field == "probe" or str(value) in (words[k + 1], f"{words[k + 1]}.0")


@pytest.mark.parametrize("plan", ["auto", *PLANS])
def test_a_plan_by_name(plan):
    wanted = {"auto": AUTO, **PLANS}[plan]
    assert call("distil", "paper", "--plan", plan).config.plan == wanted
    made = call(
        "distil", "--plan.no-auto", "--plan.chunk", "3", f"--plan={plan}", "--precision", "bfloat16"
    )
    assert made.config.plan == replace(wanted, auto=False, chunk=3, precision="bfloat16")


def test_tune_is_rate_search(monkeypatch):
    assert printed("tune", "smoke", "--dry-run") == printed("rate-search", "smoke", "--dry-run")


@pytest.mark.parametrize("after", ["--dataset imgs", "--epochs 1 --architectures ConvNet", ""])
def test_evaluate_takes_its_folder_without_a_preset(a_set, after):
    made = call("evaluate", str(a_set), *after.split())
    assert made.options.folder == a_set and made.preset == "cpu"
    assert made.options.dataset == ("imgs" if "imgs" in after else None)
    assert (made.config.epochs == 1) == ("--epochs" in after)
    with pytest.raises(InputError, match="unknown preset 'nope'"):
        call("evaluate", "nope", str(a_set), *after.split())


def test_every_path_of_a_command_is_expanded(monkeypatch, tmp_path):
    from ld3m_min.commands import real_images

    monkeypatch.setenv("HOME", str(tmp_path))
    made = real_images.COMMAND.parse(["--records=~/rec"])
    assert made.args[0].records == tmp_path / "rec"


def test_the_evaluations_names_of_before(a_set):
    made = call(
        *f"evaluate {a_set} --preset smoke --dataset digits --architectures ConvNet ViT".split(),
        *[
            "--repeats",
            "3",
            "--split",
            "validation",
            "--seed",
            "5",
            "--data-split",
            "fastai",
            "--out",
            "o",
        ],
    )
    assert made.config == eval_preset("smoke", ipc=2, repeats=3, split="validation")
    assert made.options.architectures == ("ConvNet", "ViT") and made.options.seed == 5
    assert (made.options.data_split, str(made.options.out)) == ("fastai", "o")


# -- help


def squeezed(text):
    """Text without white space, and without the frames that tyro draws."""
    return "".join(c for c in text if not c.isspace() and c not in "│╭╮╰╯─")


@pytest.mark.parametrize("name", CONFIGURED)
def test_help_is_the_docstrings(name):
    text, code = printed(name, "--help")
    assert code == 0
    text = squeezed(text)
    command = MODULES[name].COMMAND
    kinds = {owner for owner, _ in paths(command.config)}
    for kind in (command.config, *kinds, *command.options.__mro__[:-1]):
        told = docstring_parser.parse(kind.__doc__).params
        own = inspect.get_annotations(kind)
        assert [p.arg_name for p in told] == list(own), f"{kind}: one line for each field"
        for p in told:
            said = p.description.replace(":func:`ld3m_min.planner.fallback.choose`", "`choose`")
            assert squeezed(said) in text, f"{kind.__name__}.{p.arg_name}"
    for _, path in paths(command.config):
        assert option(path) in text


def test_help_has_the_values_of_what_is_asked_for():
    text = squeezed(printed("distil", "paper", "--size", "256", "--algorithm", "MTT", "--help")[0])
    assert "(default:256)" in text and "(default:10000)" in text and "(default:MTT)" in text
    for name in PRESETS:
        assert f"{name}:" in text
    for wrong in (["huge"], ["--no-such-option"], ["--lr", "0"], ["cpu", "more"]):
        assert printed("distil", *wrong, "--help")[1] == 0


def test_the_list_of_commands_needs_no_library():
    code = (
        "import sys\nfrom ld3m_min.commands import parsed\n"
        "try:\n    parsed(['--help'])\nexcept SystemExit as left:\n    assert not left.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


# -- mistakes


@pytest.mark.parametrize(
    "words, message",
    [
        ("distil huge", "unknown preset 'huge'; choose smoke, cpu"),
        ("train-prior huge", "unknown preset 'huge'; choose digits"),
        ("fine-tune huge", "unknown fine-tuning preset 'huge'; choose minimax-digits"),
        ("distil cpu --ipc 0", "--ipc must be at least 1, not 0"),
        ("distil cpu --sampler.residual.into all", "--sampler.residual.into='all' is unknown"),
        ("distil cpu --mtt.max-start-epoch 7", "--mtt.max-start-epoch 7 + --mtt.expert-epochs 2"),
        ("distil cpu --no-learn-z --no-learn-c", "--learn-z and --learn-c are both off"),
        ("distil cpu --plan.decoder-chunk 2", "--plan.decoder-chunk is for a decoder"),
        ("distil cpu --plan all", "unknown plan 'all'; choose auto, one-pass"),
        ("distil paper --plan.steps 3", "--plan.steps is chosen by --plan.auto"),
        ("train-prior --size 30", "must be a multiple"),
        ("rate-search cpu --repeats= ", "an empty value"),
    ],
)
def test_what_cannot_be_is_a_sentence_that_names_the_option(words, message):
    with pytest.raises(InputError) as refused:
        parsed(words.split(" "))
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words", ["distil --ipcc 3", "distil --algorithm GAN", "distil cpu gpu", "evaluate", "distill"]
)
def test_an_unknown_option_is_code_2(words, capsys):
    with pytest.raises(SystemExit) as left:
        parsed(words.split())
    assert left.value.code == 2 and "ld3m_min" in capsys.readouterr().err


def test_messages_speak_of_options():
    said = with_options("MTTConfig.lr, mtt.lr and config.lr; lr and expert_lr.", DistilConfig)
    assert said == "--mtt.lr, --mtt.lr and --lr; lr and --mtt.expert-lr."


def test_plans_are_of_a_generator():
    with pytest.raises(InputError, match="--space pixel has no generator"):
        plan.run(call("plan", "--space", "pixel", "--no-probe"))


# -- a search under changed settings


@pytest.fixture
def searches(monkeypatch, digits):
    """What `search` is called with, and the configuration that it would try."""
    seen = []

    def search(name, data, **options):
        seen.append((name, options, preset(name, algorithm="MTT", space="pixel")))
        return {("MTT", "pixel"): 1.0}

    monkeypatch.setattr(rate_search, "search", search)
    monkeypatch.setattr(rate_search, "load_data", lambda *a, **k: digits)
    return seen


def test_a_search_of_a_preset_goes_by_its_name(searches):
    parsed(["tune", "smoke", "--iterations", "3", "--only", "DM-pixel"])()
    ((name, options, config),) = searches
    assert name == "smoke" and options["iterations"] == 3 and options["only"] == "DM-pixel"
    assert config == preset("smoke", algorithm="MTT", space="pixel")


def test_a_changed_search_has_a_name_of_its_own(searches):
    parsed(
        [
            "rate-search",
            "paper",
            "--algorithm",
            "MTT",
            "--network.width",
            "8",
            "--size",
            "256",
            "--sampler.eta",
            "1",
        ]
    )()
    assert [o["only"] for _, o, _ in searches] == [f"{a}-{s}" for a, s in PAIRS if a == "MTT"]
    name, options, config = searches[0]
    assert (
        options["seeds"] == 1
        and name.startswith("paper-")
        and name not in PRESETS
        and options["iterations"] is None
    )
    plain = preset("paper", algorithm="MTT", space="pixel", size=256)
    assert config == replace(
        plain,
        network=replace(plain.network, width=8),
        sampler=replace(plain.sampler, eta=1.0),
    )
    parsed(["rate-search", "paper", "--algorithm", "MTT", "--network.width", "9"])()
    assert searches[-1][0] != name


def test_the_rate_is_what_is_searched_for(searches):
    with pytest.raises(InputError, match="--lr is what is searched for"):
        parsed(["rate-search", "smoke", "--lr", "1"])()
    assert not searches


# -- what a command does with what it was told


def test_a_command_does_what_was_asked(digits, tmp_path, monkeypatch):
    distil_module = MODULES["distil"]
    seen = {}

    def fake(config, **options):
        seen.update(options, config=config)
        return SimpleNamespace(labels=range(20))

    monkeypatch.setattr(distil_module, "distil", fake)
    monkeypatch.setattr(
        distil_module, "load_data", lambda *a, **k: seen.update(data_words=(a, k)) or digits
    )
    text, code = printed(
        *[
            "distil",
            "smoke",
            "--algorithm",
            "MTT",
            "--dataset",
            "imagenette",
            "--size",
            "64",
            "--split",
            "fastai",
        ],
        *("--data-path", str(tmp_path), "--out", str(tmp_path / "run"), "--ipc", "2"),
    )
    assert code == 0 and f"20 images in {tmp_path / 'run' / 'set'}" in text
    assert seen["data_words"] == (
        ("imagenette",),
        {"path": tmp_path, "split": "fastai", "size": 64},
    )
    assert seen["experts"].name.startswith("experts-digits-") and seen["out"] == tmp_path / "run"
    assert seen["config"] == preset("smoke", algorithm="MTT", dataset="imagenette", size=64, ipc=2)
    assert torch.device(seen["device"]).type == "cpu"

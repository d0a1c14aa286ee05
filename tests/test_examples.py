"""Each public name has an example at the end of its docstring, and it runs as it stands."""

import doctest
import importlib
import inspect
import pkgutil
import re
import socket
import tempfile
from pathlib import Path

import pytest

import ld3m_min

# what is called by its name too, besides the names that `__all__` holds
OTHERS = {
    "ld3m_min.augment": (
        "brightness",
        "contrast",
        "crop",
        "cutout",
        "flip",
        "rotate",
        "saturation",
        "scale",
    ),
    "ld3m_min.evaluate": ("EvalResult.confidence_interval", "EvalResult.mean", "EvalResult.std"),
    "ld3m_min.networks": ("Network.embed",),
    "ld3m_min.prior": (
        "LatentDiffusionPrior.class_conditioning",
        "LatentDiffusionPrior.decode",
        "LatentDiffusionPrior.encode",
        "LatentDiffusionPrior.from_compvis",
        "LatentDiffusionPrior.from_diffusers",
        "LatentDiffusionPrior.from_pretrained",
        "LatentDiffusionPrior.null_conditioning",
        "LatentDiffusionPrior.predict_noise",
        "LatentDiffusionPrior.quantize",
        "LatentDiffusionPrior.save_pretrained",
        "StyleGenerator.features",
        "StyleGenerator.from_pretrained",
        "StyleGenerator.map",
        "StyleGenerator.save_pretrained",
        "StyleGenerator.synthesize",
    ),
    "ld3m_min.synthetic": ("SyntheticSet.images", "SyntheticSet.load", "SyntheticSet.save"),
}


def public():
    """What each public name stands for, by its full name; what is plain data is left out."""
    found = {f"ld3m_min.{name}": getattr(ld3m_min, name) for name in ld3m_min.__all__}
    for info in pkgutil.walk_packages(ld3m_min.__path__, "ld3m_min."):
        file = Path(info.module_finder.find_spec(info.name).origin)
        if "\n__all__ = " in file.read_text(encoding="utf-8"):
            module = importlib.import_module(info.name)
            found |= {f"{info.name}.{name}": getattr(module, name) for name in module.__all__}
    for name, others in OTHERS.items():
        module = importlib.import_module(name)
        for path in others:
            value = module
            for part in path.split("."):
                value = getattr(value, part)
            found[f"{name}.{path}"] = value
    once = {}
    for name, value in found.items():
        if callable(value) and not inspect.ismodule(value) and value not in once.values():
            once[name] = value
    return once


PUBLIC = public()


def example(name):
    """The lines of the example of a name, without the title; "" where there is none."""
    text = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    found = re.search(r"\n\nExample:\n((?:    \S.*\n|    +\S.*\n)+)\Z", text + "\n")
    return inspect.cleandoc("\n" + found[1]) if found else ""


def test_each_public_name_has_an_example():
    assert len(PUBLIC) > 90
    lacking = [name for name in PUBLIC if not example(name)]
    assert not lacking, f"no 'Example:' at the end of the docstring of {', '.join(lacking)}"


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_is_short_and_shows_something(name):
    steps = doctest.DocTestParser().get_examples(example(name))
    assert 2 <= sum(step.source.count("\n") for step in steps) <= 6, "2 to 6 lines of code"
    long = [line for line in example(name).splitlines() if len(line) > 80]
    assert not long, f"more than 80 characters: {long[0]}"
    shown = [step.want or step.exc_msg for step in steps if step.want or step.exc_msg]
    assert shown, "nothing is shown"
    assert not {"True\n", "False\n"} & set(shown), "a bare truth value teaches nothing"


def test_no_two_examples_are_alike():
    by_code = {}
    for name in PUBLIC:
        steps = doctest.DocTestParser().get_examples(example(name))
        code = "".join(s.source for s in steps if not s.source.startswith(("import", "from")))
        by_code.setdefault(code, []).append(name)
    assert not [names for names in by_code.values() if len(names) > 1]


def no_network(*_):
    raise OSError("an example needs no network")


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_runs_as_it_stands(name, tmp_path, monkeypatch):
    """In fresh names, without a network; it writes into temporary folders alone."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    names = {"__name__": "__main__"}
    test = doctest.DocTestParser().get_doctest(example(name), names, name, None, 0)
    said = []
    found = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    if found.failed:
        pytest.fail("".join(said), pytrace=False)
    assert found.attempted, "there is no example"
    assert not list(here.iterdir()), "it writes into the working directory"

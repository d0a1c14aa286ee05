"""Each class of the data is conditioned on its own embedding, whatever the order of the names."""

import json
from pathlib import Path

import torch

from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil

from .common import folder_of, load, settings


def _shipped(order):
    prior = LatentDiffusionPrior.from_pretrained("digits")
    return prior.for_classes(range(len(order)), order)


def test_a_class_takes_the_embedding_of_its_own_name(tmp_path):
    """Folders come in the order of their names; a prior knows the same names in another order."""
    data = load(folder_of(tmp_path / "animals", classes=("ant", "bee", "cat")))
    prior = _shipped(("cat", "ant", "bee"))
    made = distil(settings(space="ld3m", iterations=0), data=data, prior=prior, progress=False)
    want = prior.class_conditioning(torch.tensor([1, 2, 0]))
    assert torch.equal(made.state["c"], want)


def test_a_prior_of_more_classes_gives_each_class_its_own(tmp_path):
    """The data's classes are some of the prior's."""
    data = load(folder_of(tmp_path / "animals", classes=("bee", "dog")))
    prior = _shipped(("ant", "bee", "cat", "dog"))
    made = distil(settings(space="ld3m", iterations=0), data=data, prior=prior, progress=False)
    assert torch.equal(made.state["c"], prior.class_conditioning(torch.tensor([1, 3])))


def test_a_config_without_the_number_of_classes_is_a_sentence():
    """A class embedder whose yaml leaves out n_classes.

    Its default, or one error that names the field; no KeyError.
    """
    folder = Path(__file__).parent.parent / "parity" / "data"
    from safetensors.torch import load_file

    config = json.loads((folder / "compvis_tiny.json").read_text())
    config = config.get("config", config)
    config["model"]["params"]["cond_stage_config"]["params"].pop("n_classes")
    state = {
        k: v.float() if v.is_floating_point() else v
        for k, v in load_file(folder / "compvis_tiny.safetensors").items()
    }
    try:
        LatentDiffusionPrior.from_compvis(state, config)
    except ValueError as error:
        assert "n_classes" in str(error)

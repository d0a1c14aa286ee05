"""The prior in the package: small, good on held-out images, and as its card and record say."""

import pytest
import torch

from ld3m_min.data import load_data
from ld3m_min.experiments.places import RECORDS
from ld3m_min.io.files import read_json
from ld3m_min.io.values import from_dict
from ld3m_min.prior import LatentDiffusionPrior, StyleGenerator, load_prior
from ld3m_min.prior.card import write_card
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.quality import PriorQuality, measure_prior
from ld3m_min.prior.sample_quality import measure_by_pixels
from ld3m_min.prior.style_card import write_style_card
from ld3m_min.prior.style_config import STYLE_PRESETS, StyleConfig
from ld3m_min.prior.style_quality import StyleQuality, sample_style
from ld3m_min.prior.weights import SHIPPED

# a prior that is shipped -> the least PSNR of its reconstructions, dB
LEAST = {"digits": 33, "letters": 26}
NAMES = [name for name in LEAST if (SHIPPED / name / "model_index.json").exists()]
STYLE = "style-digits"


@pytest.fixture(scope="module")
def data():
    return {name: load_data(prior_preset(name).dataset) for name in NAMES}


def test_no_other_prior_is_shipped():
    assert {p.name for p in SHIPPED.iterdir()} == {*NAMES, STYLE} and "digits" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_small_and_good(data, name):
    assert sum(p.stat().st_size for p in (SHIPPED / name).rglob("*")) < 6e6
    quality = measure_prior(LatentDiffusionPrior.from_pretrained(name), data[name], per_class=5)
    assert quality.psnr >= LEAST[name] and quality.recognised >= 0.9
    assert quality.classifier_accuracy > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_what_the_record_measured(data, name, tmp_path):
    record = read_json(RECORDS / f"prior-{name}-seed0.json")
    assert record["config"]["unet_steps"] == prior_preset(name).unet_steps
    quality = PriorQuality(**record["quality"])
    write_card(
        tmp_path,
        prior_preset(name),
        data[name],
        LatentDiffusionPrior.from_pretrained(name),
        quality,
    )
    assert (tmp_path / "README.md").read_text() == (SHIPPED / name / "README.md").read_text()


def test_the_generator_of_digits_is_small_and_good():
    assert sum(p.stat().st_size for p in (SHIPPED / STYLE).rglob("*")) < 1e6
    generator, labels = load_prior(STYLE), torch.arange(10).repeat_interleave(30)
    assert isinstance(generator, StyleGenerator)
    found = measure_by_pixels(sample_style(generator, labels), labels, load_data("digits"))
    assert found.recognised >= 0.92 and found.diversity >= 0.65 and found.novelty > 1


def test_the_generators_card_is_what_the_record_measured(tmp_path):
    record, config = read_json(RECORDS / f"prior-{STYLE}-seed0.json"), STYLE_PRESETS[STYLE]
    assert from_dict(StyleConfig, record["config"]) == config
    generator = StyleGenerator.from_pretrained(STYLE)
    quality = StyleQuality(**record["quality"])
    write_style_card(tmp_path, config, load_data("digits"), generator, quality)
    assert (tmp_path / "README.md").read_text() == (SHIPPED / STYLE / "README.md").read_text()


def test_an_unknown_prior_names_the_remedy(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"shipped \(digits.*from_compvis"):
        LatentDiffusionPrior.from_pretrained("nobody/nothing")

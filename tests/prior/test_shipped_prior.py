"""The prior in the package: small, good on held-out images, and as its card and record say."""

import pytest

from ld3m_min.experiments.grids import RECORDS
from ld3m_min.io.files import read_json
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.card import write_card
from ld3m_min.prior.presets import prior_preset
from ld3m_min.prior.quality import PriorQuality, measure_prior
from ld3m_min.prior.weights import SHIPPED


def test_small_and_good(digits):
    assert sum(p.stat().st_size for p in (SHIPPED / "digits").rglob("*")) < 6e6
    quality = measure_prior(LatentDiffusionPrior.from_pretrained("digits"), digits, per_class=5)
    assert quality.psnr >= 33 and quality.recognised >= 0.9 and quality.classifier_accuracy > 0.95


def test_the_card_is_what_the_record_measured(digits, tmp_path):
    record = read_json(RECORDS / "prior-digits-seed0.json")
    assert record["config"]["unet_steps"] == prior_preset("digits").unet_steps
    quality = PriorQuality(**record["quality"])
    write_card(
        tmp_path,
        prior_preset("digits"),
        digits,
        LatentDiffusionPrior.from_pretrained("digits"),
        quality,
    )
    assert (tmp_path / "README.md").read_text() == (SHIPPED / "digits" / "README.md").read_text()


def test_an_unknown_prior_names_the_remedy(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"shipped \(digits, .*from_compvis"):
        LatentDiffusionPrior.from_pretrained("nobody/nothing")

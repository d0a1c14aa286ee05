"""Sets that a prior draws: what each does to its chains, and whether a saved set says it."""

from dataclasses import replace

import pytest
import torch

from ld3m_min.errors import InputError
from ld3m_min.experiments import cells, grids, places, running
from ld3m_min.generated import DRAWS, cluster_centres, d4m, draw, mgd, minimax, sampled
from ld3m_min.guidance import towards
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, denoise
from ld3m_min.spaces import draw_initial_images
from ld3m_min.spaces.ld3m import forward_noise
from ld3m_min.synthetic import SyntheticSet
from ld3m_min.systems import SYSTEMS

CONFIG = preset("smoke", ipc=2, iterations=0, seed=3)
CONFIG = replace(CONFIG, sampler=SamplerConfig(steps=8, residual=NO_RESIDUAL))


@pytest.fixture(scope="module")
def few(digits):
    """Twelve images of the threes and of the sevens in each split."""
    splits = {}
    for name in ("train", "validation", "test"):
        split = digits.split(name)
        places = torch.cat([split.class_positions(k)[:12] for k in (3, 7)])
        labels = torch.arange(2).repeat_interleave(12)
        splits[name] = replace(
            split, images=split.images[places], labels=labels, classes=("3", "7")
        )
    return replace(digits, **splits)


@pytest.fixture(scope="module")
def prior():
    return LatentDiffusionPrior.from_pretrained("digits")


@pytest.fixture(scope="module")
def plain(few, prior):
    return sampled(CONFIG, few, prior)


@pytest.fixture(scope="module")
def centres(few, prior):
    return cluster_centres(prior.for_classes([3, 7]), few, 2, CONFIG.seed)


def psnr(x, y):
    return -10 * torch.log10((x - y).square().mean()).item()


def test_centres_are_the_means_of_the_latents_nearest_to_them(few, prior, centres):
    latents = prior.encode(few.train.float())
    for k in (0, 1):
        of_class, own = latents[few.train.labels == k].flatten(1), centres[2 * k : 2 * k + 2]
        nearest = torch.cdist(of_class, own.flatten(1)).argmin(1)
        for i in (0, 1):
            mean = of_class[nearest == i].mean(0)
            torch.testing.assert_close(own[i].flatten(), mean, rtol=0, atol=1e-4)
    assert torch.equal(centres, cluster_centres(prior, few, 2, CONFIG.seed))


def test_d4m_near_0_is_the_decoded_centre_and_the_farther_the_stronger(few, prior, centres):
    decoded = prior.decode(centres)
    near, middle = (d4m(CONFIG, few, prior, strength=s).images() for s in (0.01, 0.7))
    assert psnr(near, decoded) > 30 > 22 > psnr(middle, decoded)


def test_d4m_at_1_knows_nothing_of_the_centres(few, prior, plain):
    made = d4m(CONFIG, few, prior, strength=1.0)
    assert torch.equal(made.images(), plain.images())
    inverted = replace(few, train=replace(few.train, images=255 - few.train.images))
    assert torch.equal(d4m(CONFIG, inverted, prior, strength=1.0).images(), plain.images())
    two = (d4m(CONFIG, data, prior, strength=0.5).images() for data in (few, inverted))
    assert not torch.equal(*two)


def test_mode_guidance_of_0_is_the_plain_sampler(few, prior, plain):
    assert torch.equal(mgd(CONFIG, few, prior, scale=0.0).images(), plain.images())


def test_guided_samples_are_nearer_to_their_modes(few, prior, plain, centres):
    guided = mgd(CONFIG, few, prior)

    def distance(made):
        return (prior.encode(made.images()) - centres).flatten(1).norm(dim=1)

    assert bool((distance(guided) < distance(plain)).all())


def test_predictions_are_nearer_to_their_modes_where_the_guidance_stops(few, prior, centres):
    own = prior.for_classes([3, 7])
    c, noise = own.class_conditioning(torch.tensor([0, 0, 1, 1])), forward_noise(centres.shape, 3)

    def gap(scale):
        seen = []
        apply = towards(own, centres, CONFIG.sampler, scale=scale)
        nothing = torch.zeros_like(noise)
        denoise(own, nothing, c, noise, CONFIG.sampler, callback=seen.append, apply=apply)
        return (seen[4].predicted_x0 - centres).flatten(1).norm(dim=1)  # the first free step of 8

    with torch.no_grad():
        assert bool((gap(0.1) < gap(0.0)).all())


def test_minimax_draws_as_samples_are_drawn(few, prior, plain):
    made = minimax(CONFIG, few, prior)
    assert torch.equal(made.images(), plain.images())
    assert made.recipe["drawn"] == {"method": "minimax", "seed": 3}
    assert plain.recipe["drawn"] == {"method": "sampled", "seed": 3}


@pytest.mark.parametrize("name", DRAWS)
def test_a_drawn_set_makes_its_images_again(name, few, prior, tmp_path):
    config = replace(CONFIG, sampler=replace(CONFIG.sampler, steps=2))
    made = draw(name, config, few, prior)
    made.save(tmp_path / "set")
    found = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(found.regenerate(), made.images()) and found.recipe == made.recipe
    assert found.classes == ("3", "7") and found.labels.tolist() == [0, 0, 1, 1]
    said = found.recipe["drawn"]
    assert said["method"] == name and said["seed"] == 3
    assert f"drawn from a prior by {name}\n" in (tmp_path / "set" / "README.md").read_text()
    by = found.recipe["prior"] or said["prior"]
    assert by["digest"] == prior.networks_digest and by["source"] == "digits"
    assert by["classes"] == {"by": "name", "rows": [3, 7]}
    assert found.recipe["config"]["sampler"]["steps"] == 2
    again, other = draw(name, config, few, prior), draw(name, replace(config, seed=4), few, prior)
    assert torch.equal(again.images(), made.images())
    assert not torch.equal(other.images(), made.images())


def test_a_prior_without_a_name_is_saved_with_its_samples(few, prior, tmp_path):
    config = replace(CONFIG, sampler=replace(CONFIG.sampler, steps=2))
    own = prior.randomised("weights", torch.Generator().manual_seed(0))
    made = sampled(config, few, own)
    made.save(tmp_path / "set")
    assert torch.equal(SyntheticSet.load(tmp_path / "set").regenerate(), made.images())
    assert d4m(config, few, own).recipe["drawn"]["prior"]["source"] is None


def test_noise_and_residual_of_the_configuration_play_no_part_in_chains_that_have_none(few, prior):
    config = replace(CONFIG, sampler=SamplerConfig(steps=2, eta=1.0))
    plain = replace(CONFIG, sampler=SamplerConfig(steps=2, residual=NO_RESIDUAL))
    for make in (d4m, mgd):
        made = make(config, few, prior)
        assert torch.equal(made.images(), make(plain, few, prior).images())
        assert made.recipe["config"]["sampler"]["eta"] == 0
        assert made.recipe["config"]["sampler"]["residual"]["into"] == "none"


def test_every_system_that_is_drawn_is_one_of_these():
    drawn = {name for name, s in SYSTEMS.items() if s.how == "drawn"}
    assert drawn == {*DRAWS, "initial", "initial-code"}  # these two are LD3M's start


def test_a_cell_of_each_becomes_a_record(few, prior, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "SAMPLES", SamplerConfig(steps=2, residual=NO_RESIDUAL))
    for name in DRAWS:
        cell = grids.Cell("digits", "smoke", name, "none", 1)
        assert cell.config().prior == ("minimax-digits" if name == "minimax" else "digits")
        record = running.make_record(
            cell,
            few,
            records=tmp_path / "records",
            runs=tmp_path / "runs",
            prior=prior,
            progress=False,
            architectures=("ConvNet",),
        )
        assert record["prior"]["digest"] == prior.networks_digest
        assert record["config"]["sampler"]["steps"] == 2 and record["loss"] == []
        assert (tmp_path / "records" / f"{cell.name}.png").exists()


@pytest.mark.parametrize("name", DRAWS)
def test_a_prior_that_lacks_something_is_refused(name, few, tiny_prior):
    alone = LatentDiffusionPrior(tiny_prior.autoencoder, None, None)
    with pytest.raises(InputError, match=f"{name} needs .* has no denoiser; take a prior that has"):
        draw(name, CONFIG, few, alone)
    with pytest.raises(InputError, match=rf"{name} needs .*\(dict\) has no latents to denoise"):
        draw(name, CONFIG, few, {})
    tiny_prior.class_embedding = None
    with pytest.raises(InputError, match="has no classes"):
        draw(name, CONFIG, few, tiny_prior)
    tiny_prior.autoencoder.encoder = None
    with pytest.raises(InputError, match="has no encoder"):
        draw(name, CONFIG, few, tiny_prior)


def test_other_mistakes_are_refused(few, prior):
    with pytest.raises(InputError, match=r"strength is 0\.0"):
        d4m(CONFIG, few, prior, strength=0.0)
    with pytest.raises(InputError, match="mode guidance must be 0 or more"):
        mgd(CONFIG, few, prior, scale=-1.0)
    with pytest.raises(InputError, match="class '3' has 12 training images, fewer than the 13"):
        d4m(replace(CONFIG, ipc=13), few, prior)
    with pytest.raises(InputError, match="'igd' is no system that draws; choose sampled, d4m"):
        draw("igd", CONFIG, few, prior)
    draw_initial_images(few, 12, 0)  # as many clusters as images are possible


def test_what_is_missing_begins_with_the_prior_that_is_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [
        grids.Cell("digits", "cpu", "minimax", "none", 1),
        grids.Cell("digits", "cpu", "ld3m-paper", "DM", 1, variant="control-prior"),
        grids.Cell("imagenette", "photos", "ld3m-paper", "DM", 1, variant="minimax-prior"),
    ]
    monkeypatch.setitem(grids.GRIDS, "tried", cells)
    # the project keeps those of the digits, and they aren't asked for
    assert "digits:" not in "".join(grids.commands(["tried"], tmp_path)[:2])
    monkeypatch.setattr(places, "RECORDS", tmp_path / "none" / "records")
    lines = grids.commands(["tried"], tmp_path)
    made = f"python -m ld3m_min fine-tune minimax-digits --records {tmp_path}"
    assert lines[0] == f"prior minimax-digits:  {made}"
    assert lines[1] == f"prior control-digits:  {made.replace('minimax', 'control')}"
    assert [line.split(":")[0] for line in lines[2:4]] == [
        "prior imagenette-64",
        "prior minimax-imagenette-64",
    ]
    assert [line.split(":")[0] for line in lines[4:]] == [c.name for c in cells]
    assert cells[1].config().prior == "control-digits"
    assert cells[1].config().sampler.residual.into == "mean"

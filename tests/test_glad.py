"""GLaD's spaces: what is learned, where it starts, and what is refused."""

from dataclasses import replace

import pytest
import torch

from ld3m_min.backprop import CHUNKS, TWO_PASS
from ld3m_min.config import VALIDATORS, GladConfig, own_settings
from ld3m_min.data import load_data
from ld3m_min.errors import InputError
from ld3m_min.experiments.layer_search import search_layer
from ld3m_min.presets import eval_preset, preset
from ld3m_min.prior import StyleGenerator
from ld3m_min.prior.style_codes import invert, mapped_noise
from ld3m_min.recipe import identity
from ld3m_min.run import distil
from ld3m_min.spaces import FeatureSpace, WPlusSpace, build_space, draw_initial_images
from ld3m_min.synthetic import SyntheticSet
from tests.style import Elsewhere, tiny_style

SPACES = ("glad-w", "glad-f")


def small(space="glad-f", algorithm="DM", layer=5, start="noise", **changes):
    config = preset("smoke", algorithm=algorithm, space=space, **changes)
    return replace(config, glad=GladConfig(layer=layer, start=start, samples=8, steps=3))


def built(config, digits, prior):
    images, labels = draw_initial_images(digits, config.ipc, config.seed)
    return build_space(config, images, labels, prior)


def made(config, digits, prior, **options):
    return distil(config, data=digits, prior=prior, progress=False, **options)


# what is learned


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "elsewhere"])
def test_sets_share_the_weights_that_their_images_depend_on(layer, elsewhere):
    generator = (
        StyleGenerator.from_stylegan(Elsewhere(classes=10), source="x")
        if elsewhere
        else tiny_style()
    )
    config = small(layer=layer) if layer else small("glad-w")
    w = mapped_noise(generator, torch.arange(2), 0)
    features = generator.features(w, layer) if layer else None

    def images():
        return generator.synthesize(w, features=features, layer=layer)

    space = FeatureSpace if layer else WPlusSpace
    shared, plain = space.shared_weights(config, generator), images()
    for weight in (p for p in generator.parameters() if all(p is not q for q in shared)):
        weight.fill_(float("nan"))
    assert torch.equal(images(), plain)
    for weight in shared:
        kept = weight.clone()
        weight.fill_(float("nan"))
        assert not torch.equal(images(), plain)
        weight.copy_(kept)


def test_w_plus_learns_the_code_of_each_layer(digits):
    space = built(small("glad-w"), digits, tiny_style())
    assert isinstance(space, WPlusSpace) and space.parameters.keys() == {"w"}
    assert space.parameters["w"].shape == (10, 9, 8)
    space.images().square().sum().backward()
    assert all(space.parameters["w"].grad[:, i].any() for i in range(9))


@pytest.mark.parametrize("layer", [1, 5, 8])
def test_f_n_learns_features_and_the_later_codes(digits, layer):
    generator = tiny_style()
    space = built(small(layer=layer), digits, generator)
    assert isinstance(space, FeatureSpace)
    assert space.parameters["w"].shape == (10, 9 - layer, 8)
    side = 4 * 2 ** ((layer - 1) // 2)
    assert space.parameters["features"].shape == (10, 8, side, side)
    # the same images as the whole codes give: the earlier ones are in the features
    w = mapped_noise(generator, torch.arange(10), 0)
    assert torch.equal(space.images(), generator.synthesize(w))
    space.images().square().sum().backward()
    assert all(p.grad.any() for p in space.parameters.values())


@pytest.mark.parametrize("algorithm", ["DC", "DM", "MTT"])
@pytest.mark.parametrize("space", SPACES)
def test_distilled_saved_and_made_again_bit_for_bit(digits, tmp_path, algorithm, space):
    found = made(small(space, algorithm, ipc=2), digits, tiny_style(), out=tmp_path)
    again = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(again.images(), found.images()) and again.state.keys() == found.state.keys()
    assert torch.equal(again.regenerate(), found.images())  # by the prior in its folder
    assert torch.equal(again.regenerate(tiny_style()), found.images())
    start = built(small(space, algorithm, ipc=2), digits, tiny_style()).state()
    assert all(not torch.equal(found.state[k], start[k]) for k in start)
    assert found.recipe["start"]["start"] == "noise" and len(found.history) == 2
    with pytest.raises(InputError, match="made with another prior"):
        again.regenerate(tiny_style(seed=1))


def test_codes_of_f_n_have_a_rate_of_their_own(digits):
    config = replace(small(iterations=1), momentum=0.0)
    steps = {}
    for w_lr in (1.0, 0.5):
        one = replace(config, glad=replace(config.glad, w_lr=w_lr))
        start, found = built(one, digits, tiny_style()).state(), made(one, digits, tiny_style())
        steps[w_lr] = {k: found.state[k] - start[k] for k in start}
    assert torch.equal(steps[1.0]["features"], steps[0.5]["features"])
    torch.testing.assert_close(steps[0.5]["w"], steps[1.0]["w"] / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_plans_change_memory_and_no_gradient(digits, space):
    generator, gradients = tiny_style(), []
    for plan in (small().plan, CHUNKS, replace(TWO_PASS, chunk=3)):
        one = built(replace(small(space), plan=plan), digits, generator)
        (one.images() ** 2).sum().backward()
        gradients.append([p.grad for p in one.parameters.values()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * a.abs().max().item())


def test_a_generator_from_elsewhere_distils(digits, tmp_path):
    small_digits = load_data("digits", size=16)
    theirs = Elsewhere(classes=10)
    theirs.img_resolution = 16
    theirs.synthesis.input[1] = torch.nn.Unflatten(1, (1, 16, 16))
    theirs.synthesis.L0.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
    theirs.synthesis.L0.style = torch.nn.Linear(6, 1)
    prior = StyleGenerator.from_stylegan(theirs, source="./theirs.pkl")
    config = small(layer=2, size=16)
    with pytest.warns(UserWarning, match="matched by position"):
        found = distil(config, data=small_digits, prior=prior, out=tmp_path, progress=False)
    assert found.state["w"].shape == (10, 2, 6)  # five codes, of which the input and two are past
    again = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(again.regenerate(prior), found.images())
    with pytest.raises(InputError, match="load it yourself"):
        again.regenerate()


# where it starts


def test_three_starts(digits):
    generator, found = tiny_style(), {}
    for start in ("noise", "mean", "invert"):
        space = built(small("glad-w", start=start, ipc=2), digits, generator)
        found[start] = space.images().detach().unflatten(0, (10, 2))
        assert space.notes["start"] == start and space.notes["seconds"] >= 0
        assert ("psnr" in space.notes) == (start == "invert")
    apart = {k: (x[:, 0] - x[:, 1]).square().mean() for k, x in found.items()}
    assert apart["mean"] < apart["noise"] / 2  # of a class alike
    images, labels = draw_initial_images(digits, 2, 0)
    wanted = invert(generator, images, labels, steps=3, samples=8)
    assert torch.equal(found["invert"].flatten(0, 1), generator.synthesize(wanted.w))


def test_classes_are_found_by_name(digits):
    """A generator whose classes stand in another order gives each class its own codes."""
    turned = tiny_style().for_classes(list(range(9, -1, -1)))
    config = small("glad-w", iterations=0)
    straight, found = (made(config, digits, p) for p in (tiny_style(), turned))
    assert torch.equal(found.images(), straight.images())
    assert found.recipe["prior"]["classes"]["rows"] == list(range(9, -1, -1))


def test_without_classes(digits):
    generator = tiny_style(classes=())
    for start in ("noise", "invert"):
        assert made(small(start=start, iterations=0), digits, generator).images().shape[0] == 10
    with pytest.raises(InputError, match="this generator has no classes; take 'noise'"):
        made(small(start="mean"), digits, generator)


# what does not fit


@pytest.mark.parametrize("space", SPACES)
def test_the_wrong_kind_of_prior(digits, tiny_prior, space):
    with pytest.raises(InputError, match=r"with a StyleGenerator, .* is a LatentDiffusionPrior"):
        made(small(space), digits, tiny_prior)
    with pytest.raises(InputError, match=r"with a LatentDiffusionPrior, .* is a StyleGenerator"):
        made(preset("smoke"), digits, tiny_style())
    with pytest.raises(InputError, match="prior digits is a LatentDiffusionPrior"):
        made(replace(small(space), prior="digits"), digits, None)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"layer": 9}, "has layers 1 to 8, and none 9"),
        ({"plan": replace(small().plan, precision="bfloat16")}, "run eagerly in float32"),
        ({"plan": replace(small().plan, compile="default")}, "run eagerly in float32"),
        ({"prior": tiny_style((8, 8, 8))}, "makes images of 16 px, not 32"),
    ],
)
def test_refused_in_one_sentence_before_any_work(digits, changes, says):
    prior = changes.pop("prior", tiny_style())
    layer = changes.pop("layer", 5)
    with pytest.raises(InputError, match=says) as caught:
        made(replace(small(layer=layer), **changes), digits, prior)
    assert "\n" not in str(caught.value)


def test_layer_zero_is_w_plus_by_name():
    with pytest.raises(InputError, match="layer must be at least 1"):
        GladConfig(layer=0)


# what a run is


def test_other_spaces_know_nothing_of_it(digits):
    """A run of another space goes on from a checkpoint that was made before there was a GLaD."""
    plain, changed = preset("smoke"), replace(preset("smoke"), glad=GladConfig(layer=2))
    assert identity(plain, digits) == identity(changed, digits)
    assert "glad" not in own_settings(plain) and own_settings(small())["glad"]["layer"] == 5
    assert identity(small(), digits) != identity(small(layer=2), digits)


# which layer


def test_the_layer_search_takes_the_best_on_validation_images(digits, tmp_path):
    protocol = eval_preset("smoke", repeats=1, epochs=1)
    config = small(iterations=1)
    found = search_layer(
        config, digits, (0, 3), prior=tiny_style(), protocol=protocol, out=tmp_path, progress=False
    )
    assert found.accuracies.keys() == {0, 3} and found.best in (0, 3)
    assert found.accuracies[found.best] == max(found.accuracies.values())
    sets = [SyntheticSet.load(tmp_path / f"layer-{n}" / "set") for n in (0, 3)]
    assert [s.recipe["config"]["space"] for s in sets] == ["glad-w", "glad-f"]
    assert sets[1].recipe["config"]["glad"]["layer"] == 3
    for layers, says in (((), "no layer to try"), ((3, 12), "and none 12")):
        with pytest.raises(InputError, match=says):
            search_layer(
                config, digits, layers, prior=tiny_style(), protocol=protocol, out=tmp_path
            )


def test_a_layer_that_diverged_is_not_the_best(digits, tmp_path, monkeypatch):
    from ld3m_min.evaluate.cross_architecture import EvalResult
    from ld3m_min.experiments import layer_search

    nan = float("nan")
    for values, best in (((nan, 0.5, 0.9), 2), ((nan, nan, nan), None)):
        left = iter(values)
        monkeypatch.setattr(layer_search, "distil", lambda *a, **k: None)
        monkeypatch.setattr(
            layer_search,
            "evaluate",
            lambda *a, left=left, **k: EvalResult(dict.fromkeys(VALIDATORS, (next(left),)), "test"),
        )
        words = (small(), digits, (0, 1, 2))
        options = {"prior": tiny_style(), "protocol": eval_preset("smoke"), "out": tmp_path}
        if best is None:
            with pytest.raises(InputError, match="diverged at every layer"):
                search_layer(*words, **options)
        else:
            assert search_layer(*words, **options).best == best

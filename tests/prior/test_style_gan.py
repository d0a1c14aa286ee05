"""The style-based generator: its convolution by definition, its layers, its files, and others'."""

import json

import pytest
import torch
import torch.nn.functional as F

from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.io.digests import digest
from ld3m_min.prior import LatentDiffusionPrior, StyleGenerator, load_prior
from ld3m_min.prior.style_codes import first_features, invert, mapped_noise, mean_codes
from ld3m_min.prior.style_layers import Mapping, Synthesis, modulated_convolution
from tests.style import DIGITS, Elsewhere, tiny_style


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def codes(generator, n=3, seed=0):
    labels = torch.arange(n) % max(1, generator.class_count)
    z = drawn(n, generator.z_width, seed=seed)
    # other codes for each layer, as learning makes them
    w = generator.map(z, labels if generator.class_count else None)
    return w + 0.3 * drawn(*w.shape, seed=seed + 1)


# the convolution


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_a_convolution_for_each_image(side, demodulate):
    x, weight = drawn(3, 4, 6, 5, dtype=torch.float64), drawn(7, 4, side, side, dtype=torch.float64)
    style = drawn(3, 4, seed=2, dtype=torch.float64)
    # the definition: weights of each image of its own, scaled by input channel, then of unit norm
    own = weight[None] * style[:, None, :, None, None]
    if demodulate:
        own = own / own.flatten(2).norm(dim=2)[:, :, None, None, None]
    wanted = F.conv2d(x.reshape(1, 12, 6, 5), own.flatten(0, 1), padding=side // 2, groups=3).view(
        3, 7, 6, 5
    )
    found = modulated_convolution(x, weight, style, demodulate=demodulate)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_demodulated_features_do_not_grow_with_the_style():
    x, weight, style = drawn(2, 4, 8, 8), drawn(6, 4, 3, 3), drawn(2, 4, seed=1)
    a, b = (modulated_convolution(x, weight, k * style) for k in (1, 50))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# layers


def test_layers_codes_and_sizes():
    generator = tiny_style()
    assert (generator.num_layers, generator.num_ws, generator.size) == (8, 9, 32)
    assert tiny_style((4, 4)).size == 8
    w = codes(generator)
    sides = [generator.features(w, n).shape[-1] for n in range(1, 9)]
    assert sides == [4, 4, 8, 8, 16, 16, 32, 32]
    images = generator.synthesize(w)
    assert images.shape == (3, 3, 32, 32) and images.min() >= 0 and images.max() <= 1


def test_images_are_the_output_brought_to_the_unit_range():
    generator, w = tiny_style(), 40 * codes(tiny_style())  # so that some are out of range
    raw = generator.output(w)
    assert raw.max() > 1 and raw.min() < -1
    assert torch.equal(generator.synthesize(w), ((raw + 1) / 2).clamp(0, 1))


@pytest.mark.parametrize("layer", range(1, 9))
def test_features_and_later_codes_give_the_same_image_bit_for_bit(layer):
    generator = tiny_style()
    w = codes(generator)
    x = generator.features(w, layer)
    whole = generator.synthesize(w)
    assert torch.equal(generator.synthesize(w, features=x, layer=layer), whole)
    other = torch.cat([drawn(3, layer, 8, seed=9), w[:, layer:]], 1)
    assert torch.equal(generator.synthesize(other, features=x, layer=layer), whole)


@pytest.mark.parametrize("layer", [1, 4, 8])
def test_codes_before_the_features_get_no_gradient(layer):
    generator = tiny_style()
    w = codes(generator).requires_grad_()
    x = generator.features(w, layer).detach().requires_grad_()
    generator.synthesize(w, features=x, layer=layer).square().sum().backward()
    assert torch.equal(w.grad[:, :layer], torch.zeros_like(w[:, :layer]))
    assert all(w.grad[:, i].abs().sum() > 0 for i in range(layer, 9)) and x.grad.abs().sum() > 0


def test_weights_are_frozen_and_a_seed_draws_them():
    generator = tiny_style()
    assert not any(p.requires_grad for p in generator.parameters())
    assert generator.digest == tiny_style().digest != tiny_style(seed=1).digest
    state = torch.get_rng_state()
    tiny_style()
    assert torch.equal(state, torch.get_rng_state())


def test_noise_and_class_count_by_direction_alone():
    """The mapping network normalises both (mean square 1), so their lengths are not seen."""
    mapping = Mapping(5, 3, 6, 2, 4)
    z, e = drawn(2, 5), drawn(2, 3, seed=1)
    w = mapping(z, e)
    assert w.shape == (2, 4, 6) and torch.equal(w[:, 0], w[:, 3])
    torch.testing.assert_close(mapping(3 * z, 7 * e), w, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mapping(z, -e), w, atol=1e-3)


# where learning starts


def test_mean_codes_are_the_mean_over_noise_of_the_class():
    generator, labels = tiny_style(), torch.tensor([3, 3, 5])
    found = mean_codes(generator, labels, 4000, 0)
    z = drawn(20000, 4, seed=5)
    for label, w in zip(labels, found, strict=True):
        every = generator.map(z, label.expand(20000))
        error = 4 * (every.std(0) / 4000**0.5)  # four standard errors
        assert ((w - every.mean(0)).abs() <= error + 1e-6).all()
    assert not torch.equal(found[0], found[1])  # of noises of their own
    assert (found[0] - found[1]).norm() < 0.2 * (found[0] - found[2]).norm()


def test_mapped_noise_belongs_to_seed_and_place():
    generator, labels = tiny_style(), torch.tensor([1, 1, 2])
    a = mapped_noise(generator, labels, 0)
    assert torch.equal(a, mapped_noise(generator, labels, 0))
    assert torch.equal(a[:2], mapped_noise(generator, labels[:2], 0))
    assert not torch.equal(a, mapped_noise(generator, labels, 1)) and not torch.equal(a[0], a[1])


def test_features_to_start_from_are_finite_and_clipped(monkeypatch):
    generator = tiny_style()
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 30.0, -30.0, 2.0])
    monkeypatch.setattr(StyleGenerator, "features", lambda self, w, layer: odd)
    found = first_features(generator, codes(generator), 1)
    assert found.tolist() == [0.0, 5.0, -5.0, 10.0, -10.0, 2.0]


def test_inversion_comes_nearer_the_later_the_layer(digits):
    """What is found after a layer includes what an earlier one could find, nearly."""
    generator, labels = tiny_style(seed=2), torch.arange(3)
    images = torch.cat([digits.train.sample_class(k, 1, torch.Generator()) for k in range(3)])
    psnr = [
        invert(generator, images, labels, layer=n, steps=60, samples=8).psnr.mean().item()
        for n in (0, 3, 5, 7)
    ]
    assert psnr == sorted(psnr) and psnr[-1] > psnr[0] + 3


def test_inversion_of_its_own_image_finds_it():
    generator, labels = tiny_style(), torch.tensor([4])
    start = mean_codes(generator, labels, 8, 0)
    found = invert(generator, generator.synthesize(start), labels, steps=1, samples=8)
    assert found.features is None and found.psnr.item() > 30 and found.seconds > 0
    w = invert(generator, generator.synthesize(codes(generator, 1)), labels, steps=40).w
    assert w.shape == (1, 9, 8) and not torch.equal(w[:, 0], w[:, 1])  # W+: each layer its own


# files


def test_saved_and_loaded(tmp_path):
    generator = tiny_style()
    generator.save_pretrained(tmp_path)
    found = load_prior(tmp_path)
    assert isinstance(found, StyleGenerator) and found.source == str(tmp_path)
    assert (found.digest, found.networks_digest) == (generator.digest, generator.networks_digest)
    assert found.classes == DIGITS and found.architecture == generator.architecture
    w = codes(generator)
    assert torch.equal(found.synthesize(w), generator.synthesize(w))
    low = StyleGenerator.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert low.dtype == torch.bfloat16 and low.networks_digest != generator.networks_digest


def test_without_classes(tmp_path):
    generator = tiny_style(classes=())
    assert generator.class_count == 0 and generator.map(drawn(2, 4)).shape == (2, 9, 8)
    with pytest.raises(InputError, match="leave the labels out"):
        generator.map(drawn(2, 4), torch.tensor([0, 1]))
    generator.save_pretrained(tmp_path)
    assert StyleGenerator.from_pretrained(tmp_path).digest == generator.digest


def test_chosen_classes_keep_the_networks():
    generator = tiny_style()
    some = generator.for_classes([7, 2])
    z = drawn(2, 4)
    assert torch.equal(some.map(z, torch.tensor([0, 1])), generator.map(z, torch.tensor([7, 2])))
    assert some.classes == ("7", "2") and some.networks_digest == generator.networks_digest
    assert some.digest != generator.digest


def test_the_digest_is_of_what_makes_images():
    generator = tiny_style()
    before = generator.networks_digest
    with torch.no_grad():
        generator.synthesis.last.bias += 1
    assert generator.networks_digest != before
    assert digest("x") != before


def damaged(folder, change):
    index = json.loads((folder / "model_index.json").read_text())
    change(index)
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda i: i.update(_class_name="Other"), "holds Other, not a StyleGenerator"),
        (lambda i: i["architecture"].update(widths=[8, 8, 8]), "is not of it"),
        (lambda i: i["architecture"].update(widths=[10**9] * 4), "weights of this architecture"),
        (lambda i: i["architecture"].update(widths=[8] * 12), "1 to 9 resolutions"),
        (lambda i: i["architecture"].update(depth=3), "unknown field depth"),
        (lambda i: i.update(architecture=None), "must be a mapping"),
        (lambda i: i.update(classes="ten"), "classes must be a list of text"),
        (lambda i: i.update(class_count=9), "class_embedding.weight is"),
        (lambda i: i.update(classes=["a"]), "class"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, change, says):
    tiny_style().save_pretrained(tmp_path)
    damaged(tmp_path, change)
    with pytest.raises(InputError, match=says) as caught:
        StyleGenerator.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_cut_weights(tmp_path):
    generator = tiny_style()
    generator.save_pretrained(tmp_path)
    file = tmp_path / "generator" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged"):
        StyleGenerator.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="the generator has no weights"):
        StyleGenerator.from_pretrained(tmp_path)


def test_weights_that_are_no_numbers(tmp_path):
    generator = tiny_style()
    with torch.no_grad():
        generator.synthesis.last.bias.fill_(float("nan"))
    generator.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not finite"):
        StyleGenerator.from_pretrained(tmp_path)


def test_each_kind_of_prior_names_the_other(tmp_path, tiny_prior):
    tiny_style().save_pretrained(tmp_path / "style")
    tiny_prior.save_pretrained(tmp_path / "latent")
    with pytest.raises(InputError, match=r"StyleGenerator\.from_pretrained"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "style")
    with pytest.raises(InputError, match=r"LatentDiffusionPrior\.from_pretrained"):
        StyleGenerator.from_pretrained(tmp_path / "latent")
    assert isinstance(load_prior(tmp_path / "latent"), LatentDiffusionPrior)


# bad input


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda g, w: g.features(w, 9), "has layers 1 to 8, and none 9"),
        (lambda g, w: g.features(w, 0), "and none 0"),
        (lambda g, w: g.synthesize(w, layer=2), "go together"),
        (lambda g, w: g.synthesize(w, features=g.features(w, 2)), "go together"),
        (lambda g, w: g.synthesize(w, features=g.features(w, 2), layer=12), "and none 12"),
        (lambda g, w: g.synthesize(w[:, :5]), r"takes \(B, 9, D\)"),
        (lambda g, w: g.map(drawn(2, 5), torch.tensor([0, 1])), r"takes \(B, 4\)"),
        (lambda g, w: g.map(drawn(2, 4)), "labels are none"),
        (lambda g, w: g.map(drawn(2, 4), torch.tensor([0.0, 1.0])), "of whole numbers"),
        (lambda g, w: g.map(drawn(2, 4), torch.tensor([0, 10])), "classes from 0 to 9"),
        (lambda g, w: g.for_classes([11]), "classes from 0 to 9"),
        (lambda g, w: tiny_style(classes=()).for_classes([0]), "no classes to choose from"),
        (lambda g, w: invert(g, torch.zeros(1, 3, 16, 16), torch.tensor([0])), "of 32 px, not 16"),
    ],
)
def test_what_does_not_fit_is_one_sentence(call, says):
    generator = tiny_style()
    with pytest.raises(InputError, match=says) as caught:
        call(generator, codes(generator))
    assert "\n" not in str(caught.value)


# from elsewhere


def test_a_generator_from_elsewhere():
    theirs = Elsewhere()
    ours = StyleGenerator.from_stylegan(theirs, source="theirs.pkl", classes=("a", "b"))
    assert (ours.num_layers, ours.num_ws, ours.size, ours.class_count) == (3, 5, 8, 2)
    z, labels = drawn(4, 3), torch.tensor([0, 1, 1, 0])
    w = ours.map(z, labels)
    assert torch.equal(w, theirs.mapping(z, F.one_hot(labels, 2).float()))
    wanted = theirs.synthesis(w)
    assert torch.equal(ours.output(w), wanted)
    for n in (1, 2, 3):
        x = ours.features(w, n)
        assert torch.equal(ours.output(w, features=x, layer=n), wanted)
        assert ours.synthesis.first_w(n) == n + 1  # the first code is the input's
    assert ours.synthesis.first_w(0) == 0
    assert not any(p.requires_grad for p in theirs.parameters())
    with pytest.raises(InputTypeError, match=r"theirs\.pkl.* is saved by its own code"):
        ours.save_pretrained("nowhere")


def test_codes_of_a_generator_from_elsewhere_that_matter():
    ours = StyleGenerator.from_stylegan(Elsewhere(), source="theirs.pkl")
    w = codes(ours).requires_grad_()
    x = ours.features(w, 2).detach()
    ours.output(w, features=x, layer=2).sum().backward()
    assert [bool(w.grad[:, i].any()) for i in range(5)] == [False, False, False, True, True]
    assert StyleGenerator.from_stylegan(Elsewhere(classes=0), source="x").class_count == 0


def test_what_is_no_generator(tmp_path):
    with pytest.raises(InputTypeError, match=r"Linear is no generator.* lacks z_dim"):
        StyleGenerator.from_stylegan(torch.nn.Linear(2, 2), source="x")
    odd = Elsewhere()
    odd.num_ws = 4
    with pytest.raises(InputTypeError, match="takes 4 codes for 4 layers"):
        StyleGenerator.from_stylegan(odd, source="x")
    odd = Elsewhere()
    del odd.synthesis.layer_names
    with pytest.raises(InputTypeError, match=r"lacks synthesis\.layer_names"):
        StyleGenerator.from_stylegan(odd, source="x")


def test_shapes_of_a_synthesis_by_hand():
    """Widths 5, 3: two layers of 5 channels at 4 px, one from 5 to 3 and one of 3 at 8 px."""
    weights = [tuple(layer.weight.shape) for layer in Synthesis((5, 3), 2).layers]
    assert weights == [(5, 5, 3, 3), (5, 5, 3, 3), (3, 5, 3, 3), (3, 3, 3, 3)]

"""Properties of the five networks that hold for any weights."""

import copy
import pickle

import pytest
import torch

from ld3m_min.networks import NETWORKS, Dropout, build_network, flat_parameters, functional

NAMES = list(NETWORKS)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def small(name, seed=0, **options):
    return build_network(name, **{"size": 32, "width": 16, "generator": seeded(seed), **options})


def images(n=2, size=32, channels=3, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=seeded(9), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_classifier_of_the_embedding(name):
    network = small(name, classes=7, channels=1).eval()
    x = images(channels=1)
    assert network.embed(x).ndim == 2
    assert network(x).shape == (2, 7)
    assert torch.equal(network.classifier(network.embed(x)), network(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_the_weights_and_the_global_one_is_left_alone(name):
    before = torch.get_rng_state()
    first, again, other, free = (flat_parameters(small(name, s)) for s in (0, 0, 1, 0))
    fresh = [flat_parameters(build_network(name, size=32, width=16)) for _ in range(2)]
    small(name)(images())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and torch.equal(first, free)
    assert not torch.equal(first, other) and not torch.equal(*fresh)


@pytest.mark.parametrize("name", NAMES)
def test_initial_values_follow_pytorch_defaults(name):
    for module in small(name, width=32).modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            bound = module.weight[0].numel() ** -0.5
            assert 0.9 * bound < float(module.weight.detach().abs().max()) <= bound
            assert module.bias is None or 0 < float(module.bias.detach().abs().max()) <= bound
        elif isinstance(module, torch.nn.GroupNorm):
            assert bool((module.weight == 1).all()) and bool((module.bias == 0).all())
    if name == "ViT":
        assert float(small(name, width=128).pos_embedding.detach().std()) == pytest.approx(
            1, abs=0.1
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "none"])
def test_every_norm_runs(name, norm):
    assert bool(small(name, norm=norm, width=8)(images(4)).isfinite().all())


@pytest.mark.parametrize(
    ("name", "sizes"), [("VGG11", (32, 48)), *((n, (16, 48, 112)) for n in NAMES if n != "VGG11")]
)
def test_other_sizes_run(name, sizes):
    for size in sizes:
        assert small(name, size=size, width=8)(images(2, size)).shape == (2, 10)


@pytest.mark.parametrize("width", [1, 7, 24, 64, 256])
def test_width_scales_every_layer(width):
    channels = {
        name: [p.shape[0] for p in small(name, width=width).parameters() if p.ndim in (2, 4)][:-1]
        for name in NAMES
    }
    reference = {
        name: [p.shape[0] for p in small(name, width=128).parameters() if p.ndim in (2, 4)][:-1]
        for name in NAMES
    }
    for name in NAMES:
        assert channels[name] == pytest.approx([n * width / 128 for n in reference[name]], abs=0.51)
    assert set(channels["ConvNet"]) == {width}


@pytest.mark.parametrize(
    ("width", "head"), [(128, 64), (64, 64), (32, 64), (16, 64), (8, 32), (24, 32), (7, 4)]
)
def test_vit_heads_keep_64_channels_where_possible(width, head):
    assert small("ViT", width=width).layers[0].head == head


@pytest.mark.parametrize(
    ("size", "depth"), [(16, 2), (32, 3), (48, 3), (64, 4), (128, 5), (224, 5), (256, 6)]
)
def test_default_depth(size, depth):
    network = build_network("ConvNet", size=size, width=4)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == depth


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "LeNet"}, "ConvNet, AlexNet, VGG11, ResNet18, ViT"),
        ({"norm": "group"}, "instance, batch, layer, none"),
        ({"size": 40}, "multiple of 16 from 16"),
        ({"size": 0}, "multiple of 16 from 16"),
        ({"name": "VGG11", "size": 16}, "multiple of 16 from 32"),
        ({"depth": 6, "size": 32}, "from 1 to 5"),
        ({"depth": 0, "size": 32}, "from 1 to 5"),
        ({"name": "ViT", "depth": 3}, "ConvNet's alone"),
        ({"width": 0}, "width"),
        ({"classes": 0}, "classes"),
        ({"channels": 1.5}, "channels"),
    ],
)
def test_bad_options_name_the_choices(options, words):
    with pytest.raises(ValueError, match=words):
        build_network(**{"name": "ConvNet", **options})


@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (2, 1, 32, 32), (3, 32, 32)])
def test_other_images_than_built_for(shape):
    with pytest.raises(ValueError, match="built for images"):
        small("ConvNet")(torch.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
def test_functional_is_the_network_at_another_point(name):
    network, other = small(name).eval(), small(name, 1).eval()
    flat, x = flat_parameters(other), images()
    before = flat_parameters(network)
    assert torch.equal(functional(network, flat)(x), other(x))
    assert torch.equal(flat_parameters(network), before)
    with pytest.raises(ValueError, match="flat vector has shape"):
        functional(network, flat[:-1])


def test_flat_parameters_is_a_copy():
    network = small("ConvNet")
    flat = flat_parameters(network)
    before = flat.clone()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1)
    assert torch.equal(flat, before) and not flat.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_functional_differentiates_twice(name):
    """The derivative of a gradient's component by the images, against a finite difference."""
    network = small(name, width=8, size=32).double().eval()
    flat = flat_parameters(network).requires_grad_()
    x = images(dtype=torch.float64).requires_grad_()
    direction = torch.randn(flat.shape, generator=seeded(2), dtype=torch.float64)
    # longer ones cross ReLU kinks
    step = torch.randn(x.shape, generator=seeded(3), dtype=torch.float64) * 1e-8

    def component(x):
        loss = functional(network, flat)(x).logsumexp(1).sum()
        return torch.autograd.grad(loss, flat, create_graph=True)[0] @ direction

    gradient_x, gradient_flat = torch.autograd.grad(component(x), (x, flat))
    difference = float((component(x + step) - component(x - step)).detach()) / 2
    assert float((gradient_x * step).sum()) == pytest.approx(difference, rel=1e-4)
    assert bool(gradient_flat.isfinite().all()) and float(gradient_flat.abs().max()) > 0


def test_dropout_rate_scale_and_modes():
    dropout, x = Dropout(0.1), torch.ones(100_000)
    y = dropout(x)
    assert float((y == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert not torch.equal(dropout(x), y)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_is_copied_with_its_state_and_is_no_parameter():
    network = small("ViT").train()
    x = images()
    network(x)
    twins = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    expected = network(x)
    assert all(torch.equal(twin(x), expected) for twin in twins)
    assert not torch.equal(network(x), expected)
    assert torch.equal(small("ViT").train()(x), small("ViT").train()(x))
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    masks = [m.generator.initial_seed() for m in network.modules() if isinstance(m, Dropout)]
    assert len(set(masks)) == len(masks) == 31

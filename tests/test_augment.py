"""Properties of DSA and of its operations."""

import math

import pytest
import torch

from ld3m_min import augment
from ld3m_min.augment import DSA, FAMILIES

OPERATIONS = {
    operation.__name__: names for family in FAMILIES.values() for operation, names in family.items()
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(n=4, height=16, width=16, dtype=torch.float32):
    return torch.randn(n, 3, height, width, generator=seeded(5), dtype=dtype)


@pytest.mark.parametrize("siamese", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_generator_same_images_and_the_global_one_left_alone(family, siamese):
    x, dsa, before = images(), DSA(family), torch.get_rng_state()
    first, again = (dsa(x, seeded(0), siamese=siamese) for _ in range(2))
    others = [dsa(x, seeded(s), siamese=siamese) for s in range(1, 8)]
    assert torch.equal(first, again)
    assert any(not torch.equal(first, other) for other in others)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("siamese", [True, False])
def test_two_stages_equal_one_call(siamese):
    x, dsa = images(), DSA()
    for seed in range(12):
        draw = dsa.draw(len(x), 16, seeded(seed), siamese=siamese)
        assert torch.equal(dsa.apply(x, draw), dsa(x, seeded(seed), siamese=siamese))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_siamese_draw_meets_batches_of_any_size(family):
    x, dsa = images(6), DSA(family)
    draw = dsa.draw(6, 16, seeded(3), siamese=True)
    singles = torch.cat([dsa.apply(image[None], draw) for image in x])
    torch.testing.assert_close(dsa.apply(x, draw), singles, rtol=0, atol=1e-6)
    assert torch.equal(dsa(x, seeded(3), siamese=True)[:1], dsa(x[:1], seeded(3), siamese=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_values_per_image_equal_single_calls(family):
    x, dsa = images(5), DSA(family)
    draw = dsa.draw(5, 16, seeded(1))
    singles = [
        dsa.apply(
            x[i : i + 1], augment.Draw(family, {k: v[i : i + 1] for k, v in draw.values.items()})
        )
        for i in range(5)
    ]
    torch.testing.assert_close(dsa.apply(x, draw), torch.cat(singles), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"3 values \(one per image\)"):
        dsa.apply(x[:3], draw)


def test_every_family_is_drawn_and_values_keep_their_ranges():
    generator, counts = seeded(0), dict.fromkeys(FAMILIES, 0)
    for _ in range(1200):
        draw = DSA().draw(8, (32, 48), generator)
        counts[draw.family] += 1
        for name, value in draw.values.items():
            side = 32 if name.endswith("row") else 48
            low, high = {"s": (-side // 8, side // 8), "c": (0, side), "u": (0, 1)}[name[0]]
            assert value.shape == (8,) and low <= float(value.min()) and float(value.max()) <= high
    assert all(150 < n < 250 for n in counts.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_differentiable_twice(family):
    dsa = DSA(family)
    draw = dsa.draw(2, (5, 6), seeded(4))
    x = images(2, 5, 6, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dsa.apply(x, draw), x)
    assert torch.autograd.gradgradcheck(lambda x: dsa.apply(x, draw).sin(), x)


@pytest.mark.parametrize("operation", ["scale", "rotate"])
def test_sampling_equals_grid_sample(operation):
    x = images(3, 9, 14, torch.float64)
    u, v = torch.rand(2, 3, generator=seeded(6), dtype=torch.float64)
    if operation == "scale":
        sx, sy = (w * (1.2 - 1 / 1.2) + 1 / 1.2 for w in (u, v))
        rows = [[sx, 0 * u, 0 * u], [0 * u, sy, 0 * u]]
        y = augment.scale(x, {"u_scale_x": u, "u_scale_y": v})
    else:
        a = (u - 0.5) * math.pi / 6
        rows = [[a.cos(), -a.sin(), 0 * u], [a.sin(), a.cos(), 0 * u]]
        y = augment.rotate(x, u)
    theta = torch.stack([torch.stack(row, -1) for row in rows], 1)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=True)
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=True)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_draws_that_leave_the_image_alone():
    x = images(dtype=torch.float64)
    half, zero = torch.tensor([0.5]), torch.tensor([0])
    for y in (
        augment.brightness(x, half),
        augment.saturation(x, half),
        augment.contrast(x, half),
        augment.crop(x, (zero, zero)),
        augment.flip(x, half),
        augment.rotate(x, half),
    ):
        torch.testing.assert_close(y, x, rtol=0, atol=1e-12)


def test_crop_shifts_and_flip_mirrors():
    x = images()
    y = augment.crop(x, {"shift_row": torch.tensor([2]), "shift_col": torch.tensor([-1])})
    assert torch.equal(y[..., :-2, 1:], x[..., 2:, :-1])
    assert not y[..., -2:, :].any() and not y[..., 0].any()
    assert torch.equal(augment.flip(x, torch.tensor([0.1])), x.flip(3))


@pytest.mark.parametrize(
    ("row", "col", "zeros"), [(8, 8, 64), (0, 0, 16), (16, 16, 16), (0, 8, 32)]
)
def test_cutout_is_cut_off_at_the_border(row, col, zeros):
    y = augment.cutout(torch.ones(1, 1, 16, 16), (torch.tensor([row]), torch.tensor([col])))
    assert int((y == 0).sum()) == zeros


@pytest.mark.parametrize("strategy", ["none", ""])
def test_no_strategy_is_the_identity(strategy):
    x = images()
    assert torch.equal(DSA(strategy)(x, seeded(0)), x)


def test_unknown_family_lists_the_known_ones():
    with pytest.raises(ValueError, match="color, crop, cutout, flip, scale, rotate"):
        DSA("color_blur")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_unfit_images_and_draws(operation):
    names, apply = OPERATIONS[operation], getattr(augment, operation)
    draw = {name: torch.zeros(1) for name in names}
    with pytest.raises(ValueError, match="float images"):
        apply(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), draw)
    with pytest.raises(ValueError, match="float images"):
        apply(torch.zeros(3, 8, 8), draw)
    with pytest.raises(ValueError, match=" and ".join(names)):
        apply(images(), {})

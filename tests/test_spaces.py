"""Spaces with more images than `ipc`: frequencies, neural fields, latents by bytes.

Their arithmetic is compared with scipy and with plain formulas, their budgets with numbers worked
out by hand, and their sets are whole.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from ld3m_min.backprop import Plan
from ld3m_min.commands import distil as distil_command
from ld3m_min.commands import evaluate as evaluate_command
from ld3m_min.config import ALGORITHMS, DDiFConfig, DistilConfig, FreDConfig, own_settings
from ld3m_min.data import DataSplits, ImageDataset
from ld3m_min.distillers import DISTILLERS
from ld3m_min.errors import InputError
from ld3m_min.evaluate import evaluate
from ld3m_min.experts import train_experts
from ld3m_min.planner.forecast import codes, forecast
from ld3m_min.presets import eval_preset, preset
from ld3m_min.recipe import identity
from ld3m_min.run import distil
from ld3m_min.set_files import check_set
from ld3m_min.spaces import SPACES, build_space, ddif, draw_initial_images, fred
from ld3m_min.spaces.autoencoder import codes_in_bytes
from ld3m_min.synthetic import SyntheticSet
from ld3m_min.systems import SYSTEMS

EQUAL = ("autoencoder-bytes", "fred", "ddif")  # of equal storage


def config(space, size=32, **changes):
    return DistilConfig(space=space, size=size, **changes)


def random_images(n=6, size=8, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def psnr(images, targets):
    """Of each image, dB."""
    return -10 * (images - targets).square().mean((1, 2, 3)).log10()


def in_two_classes(**settings):
    """A space "fred" of two classes of three random images of 8 px, and these images."""
    images, labels = random_images(), torch.tensor([0, 0, 0, 1, 1, 1])
    chosen = config("fred", 8, fred=FreDConfig(**settings))
    return build_space(chosen, images, labels), images


# frequencies


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_cosine_transform_is_scipys(size):
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    wanted = dctn(x.numpy(), axes=(2, 3), norm="ortho")
    assert np.allclose(fred.dct2(x).numpy(), wanted, atol=1e-12)
    assert np.allclose(fred.idct2(x).numpy(), idctn(x.numpy(), axes=(2, 3), norm="ortho"))
    # Parseval: the squares of an image and of its coefficients have one sum
    assert float(fred.dct2(x).square().sum()) == pytest.approx(float(x.square().sum()))


def test_all_frequencies_are_the_image_itself():
    space, images = in_two_classes(kept=64)
    assert len(space.parameters["coefficients"][0, 0]) == 64
    assert torch.allclose(space.images(), images, atol=1e-6)


def test_the_frequencies_that_vary_most_are_kept():
    """By hand: two images of a class that differ in two waves, the rest being alike."""
    shared = random_images(1)[0] / 4
    waves = torch.zeros(2, 8, 8, dtype=torch.float64)
    waves[0, 1, 2], waves[1, 1, 2] = 0.3, -0.3
    waves[0, 5, 0], waves[1, 5, 0] = -0.2, 0.2
    difference = torch.from_numpy(idctn(waves.numpy(), axes=(1, 2), norm="ortho")).float()
    images = shared + 0.25 + difference[:, None]
    found = fred.most_varied(images, 2).nonzero().flatten().tolist()
    assert found == [8 * 1 + 2, 8 * 5 + 0]
    assert fred.most_varied(images, 1).nonzero().item() == 8 * 1 + 2
    # waves of opposite sign in two channels: their mean does not vary
    sign = torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    opposed = shared + 0.25 + difference[:, None] * sign
    opposed[0, :, 0, 0] += 0.01
    assert fred.most_varied(opposed, 1).nonzero().item() not in (8 * 1 + 2, 8 * 5 + 0)


def test_each_class_keeps_frequencies_of_its_own():
    space, images = in_two_classes(kept=10)
    kept = np.unpackbits(space.constants["masks"].numpy(), axis=1).reshape(2, 8, 8)
    assert space.constants["masks"].shape == (2, 8)  # 64 bits a class
    for k, own in enumerate(torch.chunk(images, 2)):
        spectrum = dctn(own.numpy().astype(np.float64), axes=(2, 3), norm="ortho")
        variance = spectrum.mean(1).var(0)
        assert kept[k].sum() == 10
        assert variance[kept[k] == 1].min() > variance[kept[k] == 0].max()
        wanted = idctn(spectrum * kept[k], axes=(2, 3), norm="ortho").clip(0, 1)
        assert np.allclose(space.images().detach()[3 * k : 3 * k + 3], wanted, atol=1e-6)
    assert (kept[0] != kept[1]).any()


def test_of_a_single_image_the_largest_waves_are_kept():
    image = random_images(1)
    x = dctn(image[0].mean(0).numpy(), norm="ortho")
    wanted = np.sort(np.abs(x).flatten().argsort()[-5:])
    assert fred.most_varied(image, 5).nonzero().flatten().tolist() == wanted.tolist()


def test_the_gradient_is_the_kept_part_of_the_pixels_gradient():
    space, _ = in_two_classes(kept=10)
    # within (0, 1) nothing is cut off, and the map is linear
    with torch.no_grad():
        space.parameters["coefficients"].mul_(0.2)
        space.parameters["coefficients"].add_(0.01)
    out = space.images()
    assert list(space.parameters) == ["coefficients"]
    at_pixels = random_images(seed=1) * ((out > 0) & (out < 1))
    (found,) = torch.autograd.grad(out, space.parameters["coefficients"], at_pixels)
    kept = np.unpackbits(space.constants["masks"].numpy(), axis=1).astype(bool)
    every = dctn(at_pixels.numpy(), axes=(2, 3), norm="ortho").reshape(6, 3, 64)
    wanted = np.stack([every[i][:, kept[i // 3]] for i in range(6)])
    assert found.shape == (6, 3, 10) and np.allclose(found, wanted, atol=1e-5)
    assert bool((found != 0).all())  # every kept coefficient takes part


# neural fields


def plain_field(numbers, chosen, row, column):
    """The colour that one field gives at one pixel, by the formula of a SIREN, in float64."""
    settings, size, at = chosen.ddif, chosen.size, 0
    x = np.array([-1 + 2 * row / (size - 1), -1 + 2 * column / (size - 1)])
    layers = ddif.field_layers(chosen)
    for k, (inputs, outputs) in enumerate(layers):
        W = numbers[at : at + inputs * outputs].reshape(outputs, inputs)
        b = numbers[at + inputs * outputs : at + (inputs + 1) * outputs]
        at, x = at + (inputs + 1) * outputs, W @ x + b
        if k + 1 < len(layers):
            x = np.sin((settings.hidden_frequency if k else settings.first_frequency) * x)
    assert at == len(numbers)
    return x


def drawn(chosen, n=4, seed=0):
    return ddif.drawn_fields(chosen, n, torch.Generator().manual_seed(seed))


def test_numbers_of_the_published_fields():
    """2 d² + 8 d + 3 with two layers from d to d; d² + 7 d + 3 with one."""
    sizes = {128: (963, 51), 32: (81, 37), 64: (283, 43)}
    for size, (numbers, images) in sizes.items():
        chosen = config("ddif", size)
        assert ddif.field_numbers(chosen) == numbers == drawn(chosen, 1).shape[1]
        assert SPACES["ddif"].per_class(chosen) == images == 3 * size**2 // numbers
    assert [o for _, o in ddif.field_layers(config("ddif", 128))] == [20, 20, 20, 3]
    assert [o for _, o in ddif.field_layers(config("ddif", 256))] == [40, 40, 40, 3]
    assert ddif.field_layers(config("ddif", ddif=DDiFConfig(width=4, hidden=0))) == [(2, 4), (4, 3)]


def test_fields_at_once_are_fields_one_by_one():
    chosen = config("ddif", 5, ddif=DDiFConfig(width=4, hidden=2))
    fields = drawn(chosen)
    together = ddif.evaluated(fields, chosen)
    assert together.shape == (4, 3, 5, 5)
    for i, field in enumerate(fields):
        alone = ddif.evaluated(field[None], chosen)[0]
        assert torch.allclose(together[i], alone, atol=1e-5)
        for row, column in ((0, 0), (1, 3), (4, 2)):
            wanted = plain_field(field.double().numpy(), chosen, row, column)
            assert np.allclose(together[i, :, row, column], wanted, atol=1e-4)


def test_many_fields_are_recomputed_in_parts(monkeypatch):
    chosen = config("ddif", 8, ddif=DDiFConfig(width=4, hidden=1))
    space = ddif.DDiFSpace(drawn(chosen, 5) * 0.2, chosen)
    whole, at = space.images(), random_images(5)
    (gradient,) = torch.autograd.grad(whole, space.parameters["fields"], at)
    calls, plain = [], ddif.evaluated

    def seen(fields, chosen):
        calls.append(len(fields))
        return plain(fields, chosen)

    monkeypatch.setattr(ddif, "evaluated", seen)
    monkeypatch.setattr(ddif, "AT_ONCE", 2 * 4 * 64)
    parts = space.images()
    assert calls == [2, 2, 1]
    assert torch.allclose(parts, whole, atol=1e-6)
    (again,) = torch.autograd.grad(parts, space.parameters["fields"], at)
    assert sorted(calls) == [1, 1, 2, 2, 2, 2]
    assert torch.allclose(again, gradient, rtol=1e-4, atol=1e-5)


def test_fields_are_drawn_as_siren_draws_them():
    chosen = config("ddif", ddif=DDiFConfig(width=50, hidden=1))
    fields = drawn(chosen, 20)
    cuts = [2 * 50, 50, 50 * 50, 50, 50 * 3, 3]
    bounds = [1 / 2, 1 / math.sqrt(2), *2 * [math.sqrt(6 / 50) / 40, 1 / math.sqrt(50)]]
    for part, bound in zip(fields.split(cuts, 1), bounds, strict=True):
        assert 0.9 * bound < part.abs().max() <= bound
        assert abs(part.mean()) < 0.2 * bound


def test_a_fit_knows_more_than_the_mean_colour(digits):
    images, labels = draw_initial_images(digits, 1, 0)
    chosen = config("ddif", ddif=DDiFConfig(fit_steps=60))
    space = build_space(chosen, images, labels)
    before = space.images().detach()
    space.begin()
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    reached, constant = psnr(space.images().detach(), images), psnr(mean, images)
    assert reached.mean() > constant.mean() + 4 > psnr(before, images).mean()
    assert space.parameters["fields"].grad is None
    kept = space.images()
    space.begin()  # a second time there is nothing to do
    assert torch.equal(kept, space.images())


def test_a_fit_is_the_same_by_its_seed(digits):
    images, labels = draw_initial_images(digits, 1, 0)
    made = []
    for seed in (0, 0, 1):
        space = build_space(config("ddif", seed=seed, ddif=DDiFConfig(fit_steps=2)), images, labels)
        space.begin()
        made.append(space.parameters["fields"])
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_a_fit_that_diverges_is_refused(digits):
    images, labels = draw_initial_images(digits, 1, 0)
    space = build_space(config("ddif", ddif=DDiFConfig(fit_steps=3, fit_lr=1e30)), images, labels)
    with pytest.raises(InputError, match=r"not finite at its end; lower ddif\.fit_lr = 1e\+30"):
        space.begin()


# budgets


def test_images_in_the_place_of_one():
    assert SPACES["fred"].per_class(config("fred", 128, fred=FreDConfig(kept=2048))) == 8
    for size, kept in ((128, 2048), (64, 512), (32, 128)):  # an eighth, where nothing is said
        assert fred.kept_frequencies(config("fred", size)) == kept
        assert SPACES["fred"].per_class(config("fred", size)) == 8
    assert SPACES["fred"].per_class(config("fred", ipc=10)) == 80
    assert SPACES["fred"].per_class(config("fred", fred=FreDConfig(kept=1000), ipc=3)) == 3
    assert SPACES["ddif"].per_class(config("ddif", ipc=10)) == 379  # 30,720 / 81
    for space in ("pixel", "autoencoder", "ld3m"):
        assert SPACES[space].per_class(config(space, ipc=7)) == 7


@pytest.mark.parametrize(
    "channels, factor, size, ipc, codes",
    [
        (4, 8, 128, 1, 12),  # the 12 LPC of the paper's section 5: 49,152 / (4 * 16 * 16 * 4)
        (4, 8, 128, 10, 120),
        (4, 8, 256, 1, 12),
        (3, 4, 32, 1, 4),  # 3,072 / (3 * 8 * 8 * 4)
        (4, 4, 64, 1, 3),
        (4, 2, 32, 2, 1),  # 6,144 / (4 * 16 * 16 * 4) = 1.5
    ],
)
def test_codes_in_the_bytes_of_images(channels, factor, size, ipc, codes):
    chosen = config("autoencoder-bytes", size, ipc=ipc)
    assert codes_in_bytes(chosen, channels, factor) == codes


@pytest.mark.parametrize("ipc", [1, 2])
@pytest.mark.parametrize("space", EQUAL)
def test_no_set_takes_more_than_its_budget(digits, tiny_prior, space, ipc):
    chosen = preset("smoke", space=space, ipc=ipc, iterations=0)
    made = distil(chosen, data=digits, prior=tiny_prior, progress=False)
    if space == "autoencoder-bytes":  # bytes of 8-bit RGB
        used, room = 4 * made.state["Z"].numel(), 10 * ipc * 3 * 32**2
        assert made.state["Z"].dtype == torch.float32
    else:  # numbers; the masks of "fred" come on top, one bit a frequency
        name = {"fred": "coefficients", "ddif": "fields"}[space]
        used, room = made.state[name].numel(), 10 * ipc * 3 * 32**2
    one = used / len(made.labels)
    assert used <= room < used + 10 * one and made.ipc > made.config.ipc == ipc
    if space == "fred":
        assert made.state["masks"].numel() == 10 * 32**2 // 8


# whole sets


@pytest.fixture(scope="module")
def experts(digits, tmp_path_factory):
    place = tmp_path_factory.mktemp("experts")
    return train_experts(preset("smoke", algorithm="MTT"), digits, place, progress=False)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("space", EQUAL)
def test_a_set_is_learned_saved_loaded_and_decoded(
    digits, tiny_prior, experts, tmp_path, algorithm, space
):
    chosen = preset("smoke", algorithm=algorithm, space=space, iterations=2)
    run = {"data": digits, "prior": tiny_prior, "experts": experts, "progress": False}
    made = distil(chosen, out=tmp_path, **run)
    begun = distil(replace(chosen, iterations=0), **run)
    assert len(made.history) == 2 and not torch.equal(made.pixels, begun.pixels)
    each = SPACES[space].per_class(chosen, tiny_prior)
    assert each > 1 and torch.equal(made.labels, torch.arange(10).repeat_interleave(each))
    again = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(again.pixels, made.pixels) and again.ipc == each and again.config == chosen
    assert all(torch.equal(v, again.state[k]) for k, v in made.state.items())
    decoded = again.regenerate(tiny_prior if SPACES[space].needs_prior else None)
    assert torch.equal(decoded, made.pixels)
    again.save(tmp_path / "copy")
    assert len(list((tmp_path / "copy" / "images").rglob("*.png"))) == 10 * each
    said = (tmp_path / "copy" / "README.md").read_text()
    assert f"{10 * each} images ({each} per class, in the place of 1)" in said


def test_more_images_begin_with_those_of_one_image_per_class(digits):
    one, eight = (draw_initial_images(digits, n, 5) for n in (1, 8))
    assert torch.equal(eight.images[::8], one.images)


def test_fields_are_not_fitted_again(digits, tmp_path, monkeypatch):
    chosen = preset("smoke", space="ddif")
    first = distil(chosen, data=digits, out=tmp_path, progress=False)
    monkeypatch.setattr(ddif.DDiFSpace, "begin", lambda self: pytest.fail("fitted again"))
    again = distil(replace(chosen, iterations=3), data=digits, out=tmp_path, progress=False)
    assert len(first.history) == 2 and again.history[:2] == first.history


def test_a_set_is_evaluated(digits):
    made = distil(preset("smoke", space="fred", iterations=0), data=digits, progress=False)
    found = evaluate(made, digits, ("MLP",), config=eval_preset("smoke", epochs=1, repeats=1))
    assert 0 <= found.mean("MLP") <= 1


def test_the_commands_count_images_and_storage(digits, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "--preset smoke --space fred --ipc 10 --iterations 0 --out run"
    distil_command.COMMAND.parse(words.split())()
    assert "200 images in run/set" in capsys.readouterr().out
    options = evaluate_command.EvaluateOptions(folder=tmp_path / "run" / "set")
    # as a record's protocol is: by the images whose storage it takes
    assert evaluate_command.base("cpu", {}, options) == eval_preset("cpu", ipc=10)


@pytest.mark.parametrize("algorithm", ["DC", "MTT"])
def test_codes_by_bytes_are_forecast(tiny_prior, algorithm):
    chosen = preset("smoke", algorithm=algorithm, space="autoencoder-bytes")
    plain = replace(chosen, space="autoencoder")
    each = SPACES["autoencoder-bytes"].per_class(chosen, tiny_prior)
    assert len(codes(tiny_prior, chosen, "cpu").Z) == 10 * each > 10
    more, less = (
        forecast(tiny_prior, c, Plan(), matching=False, classes=2).held_bytes
        for c in (chosen, plain)
    )
    assert more == pytest.approx(each * less, rel=0.1)
    whole, alone = (
        forecast(tiny_prior, chosen, Plan(), matching=m, classes=2) for m in (True, False)
    )
    assert whole.flops > alone.flops


def test_a_run_is_known_by_the_settings_of_its_own_space(digits):
    """So that what is there goes on, whatever settings other spaces gain."""
    for space in SPACES:
        a = config(space)
        b = replace(a, fred=FreDConfig(kept=7), ddif=DDiFConfig(width=7))
        alike = space not in ("fred", "ddif")
        assert (identity(a, digits) == identity(b, digits)) == alike
        assert (own_settings(a) == own_settings(b)) == alike


def test_systems_of_equal_storage():
    for name in EQUAL:
        assert SYSTEMS[name].how == "learned" and preset("cpu", space=name).space == name


# what is refused


def points(per_class, size=8):
    """Random images of two classes, so many of each."""
    labels = torch.tensor([0, 1]).repeat_interleave(per_class)
    shape = (2 * per_class, 3, size, size)
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).byte()
    parts = [ImageDataset(images, labels, ("a", "b"), s) for s in ("train", "validation", "test")]
    return DataSplits("points", *parts, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize(
    "space, changes, says",
    [
        (
            "fred",
            {"fred": FreDConfig()},
            "class 'a' has 5 training images, fewer than the 8 that the set starts from",
        ),
        ("fred", {"fred": FreDConfig(kept=65)}, r"fred\.kept = 65 is more than the 64 frequencies"),
        ("ddif", {"ipc": 3}, "class 'a' has 5 training images, fewer than the 7"),
        (
            "ddif",
            {"ddif": DDiFConfig(width=12)},
            "a neural field of 231 numbers is larger than the",
        ),
        ("autoencoder-bytes", {"ipc": 2}, "class 'a' has 5 training images, fewer than the 8"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    tiny_prior, tmp_path, monkeypatch, space, changes, says
):
    monkeypatch.setattr("ld3m_min.run.rehearse", lambda *args: pytest.fail("work was done"))
    monkeypatch.setattr(DISTILLERS["DM"], "step", lambda *args: pytest.fail("work was done"))
    chosen = preset("smoke", space=space, size=8, **{"ddif": DDiFConfig(width=6)} | changes)
    with pytest.raises(InputError, match=says):
        distil(chosen, data=points(5), prior=tiny_prior, out=tmp_path, progress=False)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]


def test_a_code_larger_than_its_budget_is_refused():
    chosen = config("autoencoder-bytes")
    with pytest.raises(InputError, match="code of 4096 bytes does not fit into the 3072 bytes"):
        codes_in_bytes(chosen, 4, 2)
    assert codes_in_bytes(config("autoencoder-bytes", 4), 1, 8) == 12  # not divided by nothing


def test_images_in_disorder_are_refused():
    with pytest.raises(InputError, match="class by class"):
        build_space(config("fred", 8), random_images(4), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(
    "kind, bad",
    [
        (FreDConfig, {"kept": 0}),
        (DDiFConfig, {"width": 0}),
        (DDiFConfig, {"hidden": -1}),
        (DDiFConfig, {"first_frequency": 0}),
        (DDiFConfig, {"fit_steps": -1}),
        (DDiFConfig, {"fit_lr": 0}),
    ],
)
def test_settings_out_of_range_are_refused(kind, bad):
    with pytest.raises(InputError, match=rf"{kind.__name__}\.{next(iter(bad))} must be"):
        kind(**bad)


def test_states_that_do_not_fit_are_refused():
    space, _ = in_two_classes(kept=10)
    chosen, state = config("fred", 8, fred=FreDConfig(kept=10)), space.state()
    kinds = SPACES["fred"], SPACES["ddif"]
    masks = state["masks"]
    for bad in (masks[:, :-1], masks[:0], masks.float(), masks[0], torch.zeros_like(masks)):
        with pytest.raises(InputError, match="bit for each of 64 frequencies"):
            kinds[0].restore(chosen, state | {"masks": bad}, None)
    three = torch.cat([masks, masks[:1]])[[0, 1, 2, 0]]  # for six images
    with pytest.raises(InputError, match="a row for each class"):
        kinds[0].restore(chosen, state | {"masks": three}, None)
    with pytest.raises(InputError, match=r"fields are \(2, 80\), but must have 81 numbers"):
        kinds[1].restore(config("ddif"), {"fields": torch.zeros(2, 80)}, None)


def test_a_part_that_classes_share_has_a_row_for_each():
    space, images = in_two_classes(kept=10)
    labels, state = torch.tensor([0, 0, 0, 1, 1, 1]), space.state()

    def check(labels=labels, **changes):
        check_set(images, labels, ("a", "b"), state | changes, by_class=("masks",))

    check()
    for bad in (
        {"masks": state["masks"][:1]},
        {"masks": state["masks"].long()},
        {"labels": torch.tensor([0, 1, 0, 1, 0, 1])},
        {"labels": torch.tensor([0, 0, 0, 0, 1, 1])},
    ):
        with pytest.raises(InputError, match="a row for each class, whose images stand in a row"):
            check(**bad)
    with pytest.raises(InputError, match=r"state\.masks is not finite"):
        check(masks=torch.full((2, 8), torch.nan))
    with pytest.raises(InputError, match="for 6 images"):  # a set that does not say its space
        SyntheticSet(images, labels, ("a", "b"), state)


def test_a_set_whose_images_have_another_size_is_refused(digits, tmp_path):
    made = distil(preset("smoke", space="fred", iterations=0), data=digits, progress=False)
    wrong = replace(made, recipe=made.recipe | {"config": made.recipe["config"] | {"size": 64}})
    wrong.save(tmp_path / "set")
    with pytest.raises(InputError, match=r"images are \(20, 3, 32, 32\), .*size is 64"):
        SyntheticSet.load(tmp_path / "set")

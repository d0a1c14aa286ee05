"""The loop.

Every algorithm in every space, resumed bit for bit, guarded against what is not a number.
"""

import copy
from dataclasses import replace

import pytest
import torch

from ld3m_min.config import ALGORITHMS, SPACES, STYLE_SPACES, own_settings
from ld3m_min.distillers import DISTILLERS
from ld3m_min.errors import InputError
from ld3m_min.experts import train_experts
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil, random_real
from ld3m_min.spaces import SPACES as KINDS
from ld3m_min.spaces import build_space, draw_initial_images
from ld3m_min.synthetic import SyntheticSet
from tests.style import tiny_style


def small(algorithm="DM", space="ld3m", **changes):
    return preset("smoke", algorithm=algorithm, space=space, **({"iterations": 3} | changes))


@pytest.fixture(scope="session")
def experts(digits, tmp_path_factory):
    return train_experts(small("MTT"), digits, tmp_path_factory.mktemp("experts"), progress=False)


def distilled(config, digits, prior, experts, **options):
    return distil(config, data=digits, prior=prior, experts=experts, progress=False, **options)


class Stop(Exception):
    """Stands for a kill: nothing is saved when it passes."""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("ipc", [1, 2])
def test_stopped_and_resumed_is_never_stopped(
    digits, tiny_prior, experts, tmp_path, algorithm, space, ipc
):
    config = small(algorithm, space, ipc=ipc)
    prior = tiny_style() if space in STYLE_SPACES else tiny_prior
    whole = distilled(config, digits, prior, experts, out=tmp_path / "whole")

    def stop(progress):
        # its checkpoint is not yet written: this iteration is lost and done again
        if progress.iteration == 1:
            raise Stop

    with pytest.raises(Stop):
        distilled(config, digits, prior, experts, out=tmp_path / "parts", callback=stop)
    assert Checkpointer(tmp_path / "parts" / "checkpoints", None).load().step == 1
    again = distilled(config, digits, prior, experts, out=tmp_path / "parts")
    assert torch.equal(whole.images(), again.images()) and whole.history == again.history
    assert whole.state.keys() == again.state.keys() and all(
        torch.equal(v, again.state[k]) for k, v in whole.state.items()
    )
    each = KINDS[space].per_class(config, tiny_prior)
    assert len(whole.history) == 3 and whole.images().shape == (10 * each, 3, 32, 32)
    assert whole.images().min() >= 0 and whole.images().max() <= 1
    ends = [Checkpointer(tmp_path / p / "checkpoints", None).load() for p in ("whole", "parts")]
    # momenta and MTT's rate too
    assert all(torch.equal(v, ends[1].tensors[k]) for k, v in ends[0].tensors.items())
    start = draw_initial_images(digits, each, config.seed)[0]
    if space == "pixel":
        assert not torch.equal(start, whole.images())


def test_seeds(digits, tiny_prior, experts):
    a, b, c = (distilled(small(seed=s), digits, tiny_prior, experts) for s in (0, 0, 1))
    assert torch.equal(a.images(), b.images()) and not torch.equal(a.images(), c.images())


def test_the_global_generator_is_left_alone(digits, tiny_prior, experts):
    state = torch.get_rng_state()
    distilled(small("DC"), digits, tiny_prior, experts)
    assert torch.equal(state, torch.get_rng_state())


def test_the_set_is_one_sample_everywhere(digits, tiny_prior, experts, tmp_path):
    """Value, gradient and export see the same image: (Z, c, noise) decodes to it whenever asked."""
    seen = []
    config = small(iterations=1)
    made = distilled(
        config, digits, tiny_prior, experts, out=tmp_path, callback=lambda p: seen.append(p.space)
    )
    with torch.no_grad():
        assert torch.equal(seen[0].images(), seen[0].images())
        assert torch.equal(seen[0].images(), made.images())
    assert torch.equal(made.regenerate(tiny_prior), made.images())
    again = SyntheticSet.load(tmp_path / "set")
    assert torch.equal(again.images(), made.images()) and torch.equal(again.labels, made.labels)
    # it has no other home
    assert (tmp_path / "set" / "prior").is_dir() and torch.equal(again.regenerate(), made.images())
    assert (
        again.recipe["config"] == made.recipe["config"]
        and again.classes == made.classes
        and again.history == made.history
    )
    assert torch.equal(again.regenerate(tiny_prior), made.images())


def test_a_licence_goes_into_the_set(digits, tiny_prior, experts, tmp_path):
    nothing = small(iterations=0)
    distilled(nothing, digits, tiny_prior, experts, out=tmp_path, licence="CC-BY-4.0")
    assert SyntheticSet.load(tmp_path / "set").recipe["licence"] == "CC-BY-4.0"
    assert "Licence: CC-BY-4.0" in (tmp_path / "set" / "README.md").read_text()
    assert "licence" not in distilled(nothing, digits, tiny_prior, experts).recipe
    with pytest.raises(InputError, match="an empty licence"):
        distilled(small(), digits, tiny_prior, experts, licence=" ")


def test_redrawn_noise_is_the_public_codes_and_differs(digits, tiny_prior, experts):
    a = distilled(small(), digits, tiny_prior, experts)
    b = distilled(small(redraw_noise=True), digits, tiny_prior, experts)
    assert not torch.equal(a.state["Z"], b.state["Z"])


def test_what_is_not_learned_stays(digits, tiny_prior, experts):
    for learn in ("learn_z", "learn_c"):
        made = distilled(small(**{learn: False}), digits, tiny_prior, experts)
        fixed = {"learn_z": "Z", "learn_c": "c"}[learn]
        begun = distilled(small(iterations=0), digits, tiny_prior, experts)
        assert torch.equal(made.state[fixed], begun.state[fixed])
        assert all(
            not torch.equal(v, begun.state[k])
            for k, v in made.state.items()
            if k not in (fixed, "noise")
        )


def test_z_has_a_rate_of_its_own(digits, tiny_prior, experts):
    """After one iteration Z has moved by so many times as much, and c by as much."""

    def moved(**more):
        begun = distilled(small(iterations=0), digits, tiny_prior, experts).state
        made = distilled(small(iterations=1, **more), digits, tiny_prior, experts).state
        return {k: made[k] - begun[k] for k in ("Z", "c")}

    # rates so small that both steps are seen in float32, and powers of two, so that they are exact
    plain, raised = moved(lr=2.0**-6), moved(lr=2.0**-6, z_rate=8.0)
    torch.testing.assert_close(raised["Z"], 8 * plain["Z"], rtol=1e-3, atol=1e-5)
    assert torch.equal(raised["c"], plain["c"]) and plain["Z"].abs().max() > 0
    # a run without one has the name that it had before there was such a setting
    assert "z_rate" not in own_settings(small()) and own_settings(small(z_rate=8.0))["z_rate"] == 8


def test_nan_is_caught_before_the_optimiser(digits, tiny_prior, experts, tmp_path, monkeypatch):
    config = small("DM", "pixel", iterations=4, patience=2)
    plain = DISTILLERS["DM"].step

    def poisoned(bad):
        def step(self, images, labels, iteration):
            loss = plain(self, images, labels, iteration)
            return loss * float("nan") if iteration in bad else loss

        return step

    monkeypatch.setattr(DISTILLERS["DM"], "step", poisoned({1}))
    with pytest.warns(UserWarning, match="1 of 4 iterations were skipped"):
        made = distilled(config, digits, tiny_prior, experts)
    assert [h.get("skipped", False) for h in made.history] == [False, True, False, False]
    assert torch.isfinite(made.images()).all()
    monkeypatch.setattr(DISTILLERS["DM"], "step", poisoned({1, 2}))
    with pytest.raises(
        FloatingPointError, match=r"2 iterations in a row, the last one 2 .*a lower lr than 0.01"
    ):
        distilled(config, digits, tiny_prior, experts, out=tmp_path)
    kept = Checkpointer(tmp_path / "checkpoints", None).load()
    assert kept.step == 3 and torch.isfinite(kept.tensors["space.pixels"]).all()


def test_rates_that_are_far_too_high_are_said(digits, tiny_prior, experts):
    """Where the gradient is 0 for ever, or each value is cut off, a run ends not in silence."""
    with pytest.warns(UserWarning, match=r"all gradients were 0 in 2 of 3 iterations.* lower lr"):
        distilled(small(space="fred", lr=1e8), digits, tiny_prior, experts)
    with pytest.warns(UserWarning, match=r"every value of the images is 0 or 1.* lower lr = 1e"):
        distilled(small(space="pixel", lr=1e30, iterations=4), digits, tiny_prior, experts)


@pytest.mark.parametrize("n, patience", [(1, 9), (3, 9), (9, 2)])
def test_the_last_good_state_makes_finite_images(digits, experts, tmp_path, n, patience):
    """A step from which only misses followed is undone, also when the run was killed in between."""
    config = small("DM", "autoencoder", iterations=n, patience=patience, lr=1e25)
    prior = LatentDiffusionPrior.from_pretrained("digits")

    def stop(progress):
        if progress.iteration == 2:
            raise Stop

    if n > 2 and patience > 2:
        with pytest.raises(Stop):
            distilled(config, digits, prior, experts, out=tmp_path, callback=stop)
    for _ in range(2):  # and once more, when it had given up before
        said = r"last good state is in .* lower lr than 1e"
        with pytest.raises(FloatingPointError, match=said):
            distilled(config, digits, prior, experts, out=tmp_path)
    kept = Checkpointer(tmp_path / "checkpoints", None).load()
    begun = distilled(small(space="autoencoder", iterations=0), digits, prior, experts)
    assert torch.equal(kept.tensors["space.Z"], begun.state["Z"])


def test_refused_before_the_first_iteration(digits, tiny_prior, experts, tmp_path):
    with pytest.raises(ValueError, match="size=64"):
        distilled(small(size=64), digits, tiny_prior, experts)
    with pytest.raises(
        ValueError, match=r"c is \(10, 1, 16\), but the prior's conditioning is \(B, 1, 8\)"
    ):
        narrow = LatentDiffusionPrior.null_conditioning(tiny_prior, 1)[..., :8]
        tiny_prior.null_conditioning = lambda n: narrow
        distilled(small(), digits, tiny_prior, experts)
    del tiny_prior.null_conditioning
    with pytest.raises(ValueError, match=r"load it with dtype=torch\.float32"):
        distilled(small(), digits, copy.deepcopy(tiny_prior).to(dtype=torch.bfloat16), experts)
    with pytest.raises(ValueError, match="fewer than the 500 that the set starts from"):
        distilled(small(ipc=500), digits, tiny_prior, experts)
    blind = copy.deepcopy(tiny_prior)
    blind.class_embedding = None
    without_z = small(learn_z=False, sampler=replace(small().sampler, guidance_scale=1))
    with pytest.raises(InputError, match="knows no classes, has no c; learn Z"):
        distilled(without_z, digits, blind, experts)
    distilled(small(), digits, tiny_prior, experts, out=tmp_path)
    with pytest.raises(ValueError, match=r"ipc: 1 -> 2"):
        distilled(small(ipc=2), digits, tiny_prior, experts, out=tmp_path)
    with pytest.raises(ValueError, match=r"network\.width: 16 -> 32"):
        distilled(
            small("MTT", network=replace(small().network, width=32)), digits, tiny_prior, experts
        )


def test_saved_sets_are_checked(digits, tiny_prior, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no set\.json"):
        SyntheticSet.load(tmp_path)
    made = random_real(small(), data=digits)
    made.save(tmp_path)
    assert (
        len(list((tmp_path / "images").rglob("*.png"))) == 10
        and "mean" in (tmp_path / "README.md").read_text()
    )
    file = tmp_path / "set.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        SyntheticSet.load(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        SyntheticSet.load(tmp_path)
    (tmp_path / "set.json").write_text("[]")
    with pytest.raises(ValueError, match="does not describe"):
        SyntheticSet.load(tmp_path)


def test_mtts_rate_stays_in_its_bounds(digits, tiny_prior, experts):
    config = small("MTT", "pixel", iterations=2)
    config = replace(config, mtt=replace(config.mtt, lr_lr=1e6))
    rates = [h["lr"] for h in distilled(config, digits, tiny_prior, experts).history]
    assert all(0.01 * config.mtt.lr * 0.999 <= r <= 100 * config.mtt.lr * 1.001 for r in rates)


@pytest.mark.parametrize("space", ["autoencoder", "ld3m"])
def test_the_first_step_is_the_chain_rule_and_sgd(digits, tiny_prior, space):
    """Equation (7): dL/dZ and dL/dc are dL/dS through the generator; then one step of SGD.

    dL/dS comes from the distiller at the images.
    """
    config = small("DM", space, iterations=1)
    initial, labels = draw_initial_images(digits, config.ipc, config.seed)
    begun = build_space(config, initial, labels, tiny_prior)
    images = begun.images()
    leaf = images.detach().requires_grad_()
    DISTILLERS["DM"](replace(config, dataset=digits.name), digits).step(leaf, labels, 0)
    wanted = {
        k: p.detach() - config.lr * torch.autograd.grad(images, p, leaf.grad, retain_graph=True)[0]
        for k, p in begun.parameters.items()
    }
    made = distil(config, data=digits, prior=tiny_prior, progress=False)
    assert set(wanted) == ({"Z", "c"} if space == "ld3m" else {"Z"})
    for k, p in begun.parameters.items():
        assert not torch.equal(made.state[k], p.detach())
        assert (made.state[k] - wanted[k]).norm() <= 1e-4 * (wanted[k] - p.detach()).norm()

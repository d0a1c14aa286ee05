"""Minimax's criteria by hand, its memory, and the fine-tuning that learns by them."""

import math
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from ld3m_min.commands import parsed
from ld3m_min.errors import InputError
from ld3m_min.generated import sampled
from ld3m_min.io import stop as signals
from ld3m_min.io.files import read_json
from ld3m_min.io.seeds import seeded
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior, fine_tuned_card
from ld3m_min.prior.architecture import build_prior
from ld3m_min.prior.criteria import (
    LabelledLatents,
    Latest,
    Memory,
    cosines,
    diversity,
    learned_latents,
    representativeness,
)
from ld3m_min.prior.efficient import chosen, with_factors
from ld3m_min.prior.fit import Optimiser
from ld3m_min.prior.minimax import LOGGED, FineTuningLoss, fine_tune, measure_criteria
from ld3m_min.prior.noising import noised_batch
from ld3m_min.prior.presets import fine_tune_preset, prior_preset
from ld3m_min.prior.quality import PriorQuality
from ld3m_min.prior.training_log import TrainingLog
from ld3m_min.run import distil

SMOKE = fine_tune_preset("minimax-smoke")
QUALITY = PriorQuality(30.0, 0.9, 0.99, 0.8, 1.0, 20, 40)
CPU = torch.device("cpu")
ALIKE = math.sqrt(0.5)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Two batches in place of twenty, where a prior is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ld3m_min.prior.minimax.MEASURED", 2)
        yield


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float32)


# -- the criteria, by hand


def test_the_criteria_by_hand():
    e = tensor((2, 0), (0, 3))
    # cosines to (1, 1): 0.71, 0.71; to (-1, 0): -1, 0. The lengths play no part.
    assert representativeness(e, tensor((5, 5), (-1, 0))).item() == pytest.approx(2)
    assert representativeness(e, tensor((5, 5))).item() == pytest.approx(1 - ALIKE)
    assert diversity(e, tensor((5, 5), (-1, 0))).item() == pytest.approx(ALIKE)
    assert diversity(e, tensor((0, 9), (-1, 0))).item() == pytest.approx(1)
    assert diversity(e, tensor((-1, -1))).item() == pytest.approx(-ALIKE)


def test_cosines_are_scipys():
    from scipy.spatial.distance import cdist

    x, y = torch.randn(2, 4, 7, generator=seeded(0), dtype=torch.float64)
    expected = 1 - cdist(x.numpy(), y.numpy(), "cosine")
    torch.testing.assert_close(cosines(x, y), torch.from_numpy(expected))


def test_the_least_alike_is_pulled_and_the_most_alike_is_pushed():
    e = tensor((1, 0.1), (0.1, 1)).requires_grad_()
    (pull,) = torch.autograd.grad(representativeness(e, tensor((1, 0))), e)
    assert pull[0].abs().max() == 0 and pull[1].abs().max() > 0  # the second is less alike
    after = cosines((e - 0.1 * pull).detach(), tensor((1, 0)))
    assert after[1] > cosines(e.detach(), tensor((1, 0)))[1]
    (push,) = torch.autograd.grad(diversity(e, tensor((1, 0))), e)
    assert push[1].abs().max() == 0 and push[0].abs().max() > 0
    after = cosines((e - 0.1 * push).detach(), tensor((1, 0)))
    assert after[0] < cosines(e.detach(), tensor((1, 0)))[0]


# -- the memory


def test_the_first_in_is_the_first_out():
    latest = Latest(2, 3, 1, CPU)
    assert latest.of(0).shape == (0, 1)
    latest.add(tensor((1,), (2,), (9,)), torch.tensor([0, 0, 1]))
    assert latest.of(0).tolist() == [[1], [2]] and latest.of(1).tolist() == [[9]]
    latest.add(tensor((3,), (4,), (5,)), torch.tensor([0, 0, 0]))
    assert sorted(latest.of(0).flatten().tolist()) == [3, 4, 5] and latest.of(1).tolist() == [[9]]
    latest.add(torch.arange(6.0, 20)[:, None], torch.zeros(14, dtype=torch.int64))
    assert sorted(latest.of(0).flatten().tolist()) == [17, 18, 19]


def test_criteria_begin_when_a_class_is_remembered_and_are_averaged_over_such_classes():
    memory = Memory(("a", "b", "c"), 64, 2, CPU)
    e, labels = tensor((1, 0), (0, 1)), torch.tensor([0, 1])
    found = memory.criteria(e, labels)
    assert found.representativeness == found.diversity == 0 and found.cosine.isnan()
    memory.add(tensor((1, 1), (0, 1)), tensor((0, 1), (0, -1)), labels)
    found = memory.criteria(e, labels)
    # class a: cosine to the real one 0.71, to the earlier one 0; class b: 1, and -1
    assert found.representativeness.item() == pytest.approx((1 - ALIKE + 0) / 2)
    assert found.diversity.item() == found.cosine.item() == pytest.approx((0 - 1) / 2)
    other = memory.criteria(torch.cat([e, tensor((3, 4))]), torch.tensor([0, 1, 2]))
    assert other.diversity == found.diversity  # nothing is known of class c
    memory.add(tensor((-1, 0)), tensor((1, 1)), torch.tensor([0]))
    found = memory.criteria(e[:1], labels[:1])
    assert found.representativeness.item() == pytest.approx(2)
    assert found.diversity.item() == pytest.approx(ALIKE)
    assert found.cosine.item() == pytest.approx(ALIKE / 2)


def test_the_memory_holds_no_gradient_and_no_more_than_it_may():
    memory, g = Memory(("a", "b"), 64, 5, CPU), seeded(0)
    for _ in range(7):
        e = torch.randn(30, 5, generator=g, requires_grad=True)
        labels = torch.randint(2, (30,), generator=g)
        found = memory.criteria(2 * e, labels)
        memory.add(torch.randn(30, 5, generator=g), 2 * e, labels)
        assert not memory.predicted.rows.requires_grad and memory.predicted.rows.grad_fn is None
    assert found.diversity.requires_grad and found.representativeness.requires_grad
    for kind in (memory.real, memory.predicted):
        assert len(kind.of(0)) == len(kind.of(1)) == 64 and int(kind.seen.sum()) == 210
    last = (2 * e).detach()[labels == 0]
    assert bool((cosines(last, memory.predicted.of(0)).amax(1) > 0.9999).all())


def test_codes_stay_in_the_real_memory():
    codes = LabelledLatents(
        torch.randn(4, 2, 1, 1, generator=seeded(0)), torch.tensor([0, 1, 0, 1])
    )
    memory = Memory(("a", "b"), 3, 2, CPU, codes)
    memory.add(torch.randn(5, 2), torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))
    assert torch.equal(memory.real.of(0), codes.values.flatten(1)[::2])
    assert torch.equal(memory.real.of(1), codes.values.flatten(1)[1::2])
    assert len(memory.predicted.of(0)) == 3 and len(memory.predicted.of(1)) == 0


# -- what is trained


def test_factors_start_at_1_and_are_folded_in(tiny_prior):
    denoiser = tiny_prior.denoiser
    z, t = torch.randn(2, 3, 8, 8, generator=seeded(0)), torch.tensor([3, 800])
    c = tiny_prior.class_conditioning(torch.tensor([1, 2]))
    before, names = denoiser(z, t, c).sample, set(denoiser.state_dict())
    with with_factors(denoiser):
        assert torch.equal(before, denoiser(z, t, c).sample)
        factors = [k for k, _ in denoiser.named_parameters() if k.endswith("factor")]
        with torch.no_grad():
            for name in factors:
                denoiser.get_parameter(name).mul_(1.5)
        scaled = denoiser(z, t, c).sample
    assert len(factors) == 6 * sum("attn1.to_q.weight" in k for k in names)
    assert not torch.allclose(before, scaled, atol=1e-4)
    torch.testing.assert_close(denoiser(z, t, c).sample, scaled, rtol=0, atol=1e-5)
    assert set(denoiser.state_dict()) == names


def test_what_is_chosen_is_small(tiny_prior):
    with with_factors(tiny_prior.denoiser):
        modules = {"unet": tiny_prior.denoiser, "class_embedding": tiny_prior.class_embedding}
        names = chosen(modules)
    ends = {name.rpartition(".")[2] for name in names}
    assert ends == {"bias", "weight", "factor"} and "class_embedding.weight" in names
    weights = [n for n in names if n.endswith("weight")]
    assert all("norm" in n or n == "class_embedding.weight" for n in weights)
    every_bias = {f"unet.{k}" for k, _ in tiny_prior.denoiser.named_parameters() if "bias" in k}
    assert every_bias <= names


# -- the fine-tuning


@pytest.fixture(scope="module")
def few(digits):
    """Four images of each digit in each split."""
    splits = {}
    for name in ("train", "validation", "test"):
        split = digits.split(name)
        places = torch.cat([split.class_positions(k)[:4] for k in range(10)])
        splits[name] = replace(split, images=split.images[places], labels=split.labels[places])
    return replace(digits, **splits)


@pytest.fixture(scope="module")
def start(digits):
    return build_prior(prior_preset("smoke"), digits.classes)


def copied(start):
    """A prior with the same weights, for a loop that the test writes itself."""
    prior = build_prior(prior_preset("smoke"), start.classes)
    for to, of in zip(prior.modules, start.modules, strict=True):
        to.load_state_dict(of.state_dict())
    return prior


def trained(start, few, config, steps=4):
    """The weights after each step of a fine-tuning."""
    prior = copied(start)
    latents = prior.encode(few.train.float()).detach()
    memory = Memory(few.classes, config.memory, latents[0].numel(), CPU)
    loss = FineTuningLoss(prior, latents, few.train.labels, replace(config, steps=steps), memory)
    modules = {"unet": prior.denoiser, "class_embedding": prior.class_embedding}
    found = []
    with with_factors(prior.denoiser):
        optimiser = Optimiser(
            modules, lr=config.lr, ema=0.9, steps=steps, only=chosen(modules), constant=True
        )
        for step in range(steps):
            optimiser.step(loss(step), step)
            found.append(torch.cat([p.detach().flatten() for p in optimiser.params.values()]))
    return found, loss


def test_weights_of_0_are_plain_fine_tuning_step_by_step(start, few):
    config = replace(SMOKE, batch=16, lr=1e-2)
    plain, _ = trained(start, few, replace(config, criteria=False))
    nothing, _ = trained(start, few, replace(config, representativeness=0.0, diversity=0.0))
    both, loss = trained(start, few, config)
    assert all(torch.equal(a, b) for a, b in zip(plain, nothing, strict=True))
    assert torch.equal(both[0], plain[0])  # nothing is remembered yet
    assert not any(torch.equal(a, b) for a, b in zip(both[1:], plain[1:], strict=True))
    assert (loss.log[1:, 1:3] != 0).all() and (loss.log[0, 1:3] == 0).all()


def test_plain_fine_tuning_is_adamw_on_the_noise(start, few):
    """A loop of PyTorch's own parts: no decay, a constant rate, labels dropped."""
    config = replace(SMOKE, batch=16, lr=1e-2, criteria=False, label_dropout=0.5)
    found, _ = trained(start, few, config, steps=3)
    prior = copied(start)
    latents, labels = prior.encode(few.train.float()).detach(), few.train.labels
    modules = {"unet": prior.denoiser, "class_embedding": prior.class_embedding}
    with with_factors(prior.denoiser):
        names = chosen(modules)
        wanted = {
            f"{m}.{k}": p
            for m, net in modules.items()
            for k, p in net.named_parameters()
            if f"{m}.{k}" in names
        }
        for p in wanted.values():
            p.requires_grad_(True)
        adam = torch.optim.AdamW(wanted.values(), lr=1e-2, weight_decay=0.0)
        for step in range(3):
            g = seeded(config.seed, "fine-tuning batch", step)
            batch = noised_batch(prior, latents, labels, 16, g, label_dropout=0.5)
            assert 0 < int((batch.given == 10).sum()) < 16 and int(batch.labels.max()) < 10
            c = prior.class_embedding(batch.given)[:, None]
            adam.zero_grad()
            F.mse_loss(prior.predict_noise(batch.z, batch.t, c), batch.noise).backward()
            torch.nn.utils.clip_grad_norm_(wanted.values(), 1.0)
            adam.step()
            ours = torch.cat([p.detach().flatten() for p in wanted.values()])
            torch.testing.assert_close(found[step], ours, rtol=0, atol=1e-6)


def test_averages_start_from_the_weights_that_are_there():
    net = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    optimiser = Optimiser({"net": net}, lr=0.5, ema=0.9, steps=10, constant=True)
    for step in range(2):
        optimiser.step(net.weight.sum(), step)
    # Adam goes down by its rate: 1, 0.5, 0; the average is 0.9 of before and 0.1 of now
    first = 0.9 * 1 + 0.1 * 0.5
    assert net.weight.item() == pytest.approx(0, abs=1e-6)
    assert optimiser.average["net.weight"].item() == pytest.approx(0.9 * first, abs=1e-6)


def weights(prior):
    return {f"{i}.{k}": v for i, m in enumerate(prior.modules) for k, v in m.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.fixture(scope="module")
def tuned(start, few, tmp_path_factory):
    """Four steps of a fine-tuning, and its folder."""
    out = tmp_path_factory.mktemp("tuned")
    config = replace(SMOKE, steps=4, ema=0.5)
    return config, fine_tune(start, few, config, out, progress=False), out


def test_only_what_is_chosen_changes(start, few, tuned):
    _, found, _ = tuned
    before, after = weights(start), weights(found.prior)
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert after.keys() == before.keys() and not any(k.startswith("0.") for k in changed)
    allowed = ("bias", "norm", "to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    assert all(any(a in k for a in allowed) for k in changed if k.startswith("1."))
    assert {k for k in before if k.startswith("2.")} <= changed  # the class embedding
    for name in (k for k in changed if ".to_" in k and k.endswith("weight")):
        ratio = after[name] / before[name]  # of each row the same factor
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=0)
    assert 0 < found.trained < sum(p.numel() for p in start.denoiser.parameters()) / 4
    assert not any(p.requires_grad for m in found.prior.modules for p in m.parameters())
    assert found.prior.source is None and found.prior.classes == start.classes


def test_the_prior_that_is_given_stays(start, few, tuned):
    assert same(weights(start), weights(build_prior(prior_preset("smoke"), few.classes)))


def test_what_was_measured_is_noted(tuned):
    config, found, _ = tuned
    assert found.before.keys() == found.after.keys() == set(LOGGED) == found.history.keys()
    assert found.before != found.after
    assert all(math.isfinite(v) for v in (*found.before.values(), *found.after.values()))
    assert found.history["cosine"][0] is None  # nothing was remembered
    assert all(len(v) == config.steps for v in found.history.values())
    assert all(-1 <= x <= 1 for x in found.history["diversity"])
    assert 0 <= found.after["representativeness"] <= 2


def test_a_measurement_repeats_and_trains_nothing(start, few):
    latents = start.encode(few.train.float())
    one, two = (measure_criteria(start, latents, few.train.labels, SMOKE) for _ in range(2))
    assert torch.equal(one, two) and not one.requires_grad


def test_it_stops_and_resumes_exactly(start, few, tuned, tmp_path):
    config, whole, _ = tuned
    stops, pieces = 0, None
    while pieces is None:
        signals.stop_after(0)
        try:
            pieces = fine_tune(start, few, config, tmp_path, progress=False)
        except signals.Interrupted:
            stops += 1
        finally:
            signals.stop_after(None)
    assert stops >= 3 and same(weights(pieces.prior), weights(whole.prior))
    assert pieces.history == whole.history
    assert (pieces.before, pieces.after) == (whole.before, whole.after)
    with pytest.raises(InputError, match="another configuration"):
        fine_tune(start, few, replace(config, criteria=False), tmp_path, progress=False)


def test_it_is_saved_loaded_and_drawn_from(tuned, few, tmp_path):
    _, found, _ = tuned
    found.prior.save_pretrained(tmp_path / "prior")
    again = LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
    assert same(weights(again), weights(found.prior)) and again.digest == found.prior.digest
    config = preset("smoke", iterations=0)
    ours, theirs = (sampled(config, few, p).images() for p in (again, found.prior))
    assert torch.equal(ours, theirs)


def test_ld3m_before_and_after(start, few, tuned, tmp_path):
    """Both readings of section 5: over the fine-tuned prior, and with the codes as its memory."""
    _, found, _ = tuned
    config = preset("smoke", space="ld3m", iterations=1)
    made = distil(config, data=few, prior=found.prior, progress=False)
    assert len(made.history) == 1 and made.recipe["prior"]["digest"] == found.prior.networks_digest
    codes = learned_latents(start, made, few.classes)
    assert torch.equal(codes.values, made.state["Z"]) and torch.equal(codes.labels, made.labels)
    after = fine_tune(start, few, SMOKE, tmp_path / "codes", codes=codes, progress=False)
    real = fine_tune(start, few, SMOKE, tmp_path / "real", progress=False)
    ours, theirs = after.history, real.history
    assert ours["noise"][0] == theirs["noise"][0] and ours != theirs
    assert after.codes == codes.digest and real.codes is None
    said = fine_tuned_card.card(SMOKE, few, after, QUALITY)
    assert "memories of the codes that a distillation learned" in said and "`--codes`" in said
    with pytest.raises(InputError, match="another configuration"):
        fine_tune(start, few, SMOKE, tmp_path / "codes", progress=False)


def test_a_set_without_learned_latents_is_encoded(start, few):
    pixels = distil(preset("smoke", space="pixel", iterations=0), data=few, progress=False)
    drawn = sampled(preset("smoke", iterations=0), few, start)
    for made in (pixels, drawn):
        codes = learned_latents(start, made, few.classes)
        torch.testing.assert_close(codes.values, start.encode(made.images()))


def test_a_prior_of_more_classes_is_cut_to_those_of_the_data(start, few, tmp_path):
    kept = few.train.labels >= 8
    train = replace(
        few.train,
        images=few.train.images[kept],
        labels=few.train.labels[kept] - 8,
        classes=("8", "9"),
    )
    data = replace(few, **dict.fromkeys(("train", "validation", "test"), train))
    found = fine_tune(start, data, SMOKE, tmp_path, progress=False)
    assert found.prior.classes == ("8", "9") and found.prior.class_count == 2
    before = start.class_embedding.weight[[8, 9, 10]]
    assert (found.prior.class_embedding.weight - before).abs().max() < 0.1


# -- the command, and what is refused


def test_one_command_makes_a_prior(start, few, tmp_path, monkeypatch, capsys):
    """As the shipped prior's, on a prior of the tests, and with few samples for the card."""
    monkeypatch.chdir(tmp_path)
    start.save_pretrained(tmp_path / "start")
    TrainingLog(4, 4, 1.0).save(tmp_path / "start")
    monkeypatch.setattr("ld3m_min.commands.fine_tune.load_data", lambda *a, **k: few)
    measure = fine_tuned_card.measure_prior
    monkeypatch.setattr(
        fine_tuned_card, "measure_prior", lambda p, d: measure(p, d, per_class=2, steps=1)
    )
    for kind in ("minimax", "control"):
        words = f"fine-tune {kind}-smoke --prior {tmp_path}/start --records records"
        parsed(words.split())()
        out = tmp_path / "runs" / f"prior-{kind}-smoke"
        made = LatentDiffusionPrior.from_pretrained(out / "model")
        record = read_json(tmp_path / "records" / f"prior-{kind}-smoke-seed0.json")
        assert record["criteria"].keys() == {"before", "after"} and record["quality"]["samples"]
        assert record["training"]["denoiser_steps"] == 4 + 2
        assert record["training"] == asdict(TrainingLog.of(out / "model"))
        assert made.class_count == 10
        said = (out / "model" / "README.md").read_text()
        assert ("weights 0.002 and 0.008" in said) == (kind == "minimax")
        assert ("The control" in said) == (kind == "control") and record["codes"] is None
        assert f"`python -m ld3m_min fine-tune {kind}-smoke`.\n" in said
    assert "diversity: " in capsys.readouterr().out


def test_presets_are_pairs():
    for of in ("digits", "imagenette-64", "smoke"):
        a, b = (fine_tune_preset(f"{kind}-{of}") for kind in ("minimax", "control"))
        assert a.criteria and not b.criteria
        assert replace(a, criteria=False, name=b.name, about=b.about) == b
    published = fine_tune_preset("minimax-digits")
    assert (published.representativeness, published.diversity) == (0.002, 0.008)
    assert published.memory == 64 and published.lr == 1e-3
    with pytest.raises(
        InputError, match="unknown fine-tuning preset 'huge'; choose minimax-digits"
    ):
        fine_tune_preset("huge")


def test_priors_that_lack_something_are_refused(tiny_prior, few, tmp_path):
    def refused(prior, says):
        with pytest.raises(InputError, match=says):
            fine_tune(prior, few, SMOKE, tmp_path, progress=False)

    refused("digits", r"fine-tuning needs a class-conditional .*\(str\) has no latents to denoise")
    refused(LatentDiffusionPrior(tiny_prior.autoencoder, None, None), "has no denoiser")
    tiny_prior.class_embedding = None
    refused(tiny_prior, "has no classes")
    tiny_prior.autoencoder.encoder = None
    refused(tiny_prior, "has no encoder")
    assert not list(tmp_path.iterdir())


def test_codes_that_do_not_fit_are_refused(start, few, tmp_path):
    def refused(values, labels, says):
        codes = LabelledLatents(values, labels)
        with pytest.raises(InputError, match=says):
            fine_tune(start, few, SMOKE, tmp_path, codes=codes, progress=False)

    ten = torch.arange(10)
    refused(torch.zeros(10, 3, 4, 4), ten, "but this prior's latents have 192 numbers")
    refused(torch.zeros(10, 3, 8, 8), ten + 1, "of 11 classes, but this prior's")
    refused(torch.zeros(9, 3, 8, 8), ten[:9], "class '9' has 0 codes to remember")
    refused(torch.zeros(30, 3, 8, 8), ten.repeat(3), "class '0' has 3 codes .* from 1 to 2")
    other = sampled(preset("smoke", iterations=0), few, start)
    with pytest.raises(InputError, match=r"has the classes 0, 1, .*, the data 9, 8"):
        learned_latents(start, other, few.classes[::-1])
    assert not list(tmp_path.iterdir())

"""The planner: what it predicts is what is measured, and it picks what fits.

A run out of memory goes down one plan, once.
"""

from dataclasses import replace

import pytest
import torch

from ld3m_min import run
from ld3m_min.backprop import AUTO, PLANS, Plan, generate_with_plan, ordered_plans
from ld3m_min.distillers import DISTILLERS
from ld3m_min.experts import train_experts
from ld3m_min.planner import counter, fallback, phases, seconds
from ld3m_min.planner import forecast as forecast_module
from ld3m_min.planner.counter import Counter, on_meta
from ld3m_min.planner.fallback import FallbackPlans, choose
from ld3m_min.planner.forecast import codes, forecast, forecasts, weights_of
from ld3m_min.planner.machine import out_of_memory
from ld3m_min.planner.seconds import probe
from ld3m_min.presets import preset
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig


def settings(algorithm="DM", **changes):
    return preset(
        "smoke",
        algorithm=algorithm,
        **{"sampler": SamplerConfig(steps=4), "iterations": 3} | changes,
    )


def measured(prior, config, plan):
    """Peak bytes of a real generation with gradients."""
    Z, c, noise = codes(prior, config, "cpu")
    with Counter(weights_of(prior, plan)) as counted:
        generate_with_plan(prior, Z, c, noise, config.sampler, plan).sum().backward()
    return counted.peak


@pytest.mark.parametrize("name", ordered_plans(4))
def test_memory_is_predicted(tiny_prior, name):
    plans = [ordered_plans(4)[name]]
    if name in ("one-pass", "per-step"):
        plans.append(replace(plans[0], precision="bfloat16"))
    for plan in plans:
        said = forecast(tiny_prior, settings(), plan, matching=False).peak_bytes
        assert said == pytest.approx(measured(tiny_prior, settings(), plan), rel=0.15), plan


def test_memory_of_the_shipped_prior_is_predicted_within_a_tenth():
    prior, config = (
        LatentDiffusionPrior.from_pretrained("digits"),
        settings(sampler=SamplerConfig(steps=2)),
    )
    said = forecast(prior, config, Plan(), matching=False).peak_bytes
    assert said == pytest.approx(measured(prior, config, Plan()), rel=0.1)


@pytest.mark.parametrize("algorithm", ["DC", "DM", "MTT"])
@pytest.mark.parametrize("space", ["autoencoder", "ld3m"])
def test_every_iteration_can_be_forecast(tiny_prior, algorithm, space):
    config = settings(algorithm, space=space)
    whole, alone = (forecast(tiny_prior, config, Plan(), matching=m) for m in (True, False))
    assert whole.flops > alone.flops and whole.peak_bytes >= alone.peak_bytes > 0
    assert whole.weight_bytes >= 4 * sum(
        p.numel() for m in tiny_prior.modules for p in m.parameters()
    )


@pytest.mark.parametrize("algorithm", ["DC", "DM", "MTT"])
def test_memory_of_a_whole_iteration_is_predicted_within_a_fifth(
    digits, tiny_prior, tmp_path, algorithm
):
    config = settings(algorithm, batch_real=64, network=replace(settings().network, width=32))
    experts = (
        {"experts": train_experts(config, digits, tmp_path, progress=False)}
        if algorithm == "MTT"
        else {}
    )
    distiller, labels = DISTILLERS[algorithm](config, digits, **experts), torch.arange(10)
    Z, c, noise = codes(tiny_prior, config, "cpu")
    with Counter([*weights_of(tiny_prior, config.plan), digits.train.images]) as counted:
        images = generate_with_plan(tiny_prior, Z, c, noise, config.sampler, config.plan)
        leaf = images.detach().requires_grad_()
        distiller.step(leaf, labels, 0)
        images.backward(leaf.grad)
    assert forecast(tiny_prior, config, config.plan).peak_bytes == pytest.approx(
        counted.peak, rel=0.2
    )


def test_operations_are_those_of_the_plans(tiny_prior):
    """One pass forward and one back.

    A recomputed step costs a forward pass more, two passes one more again.
    """
    found = {r.name: r.flops for r in forecasts(tiny_prior, settings(), matching=False)}
    forward = found["per-step"] - found["one-pass"]
    assert found["two-pass"] - found["per-step"] == pytest.approx(forward, rel=0.01)
    # attention costs more on the way back
    assert found["one-pass"] == pytest.approx(2 * forward, rel=0.15)
    assert found["selective"] == pytest.approx(found["one-pass"], rel=0.01)
    assert found["per-step"] > found["half"] > found["one-pass"]
    assert found["chunks"] == pytest.approx(found["per-step"], rel=0.01)


def test_memory_of_recomputed_steps_does_not_grow_with_T(tiny_prior):
    def peak(plan, T):
        return forecast(
            tiny_prior, settings(sampler=SamplerConfig(steps=T)), plan, matching=False
        ).peak_bytes

    assert peak(PLANS["per-step"], 8) < 1.1 * peak(PLANS["per-step"], 2)
    assert peak(PLANS["two-pass"], 8) < 1.1 * peak(PLANS["two-pass"], 2)
    grown = [peak(PLANS["one-pass"], T) for T in (2, 4, 8)]
    assert (grown[2] - grown[1]) == pytest.approx(2 * (grown[1] - grown[0]), rel=0.02)  # linear


def test_what_is_derived_once_counts_as_if_it_were_derived_each_time(tiny_prior):
    config, plan = settings(sampler=SamplerConfig(steps=2)), ordered_plans(2)["per-step"]
    again = [forecast(tiny_prior, config, plan) for _ in range(2)][1]
    with pytest.MonkeyPatch.context() as m:
        m.setattr(counter, "_is_new", lambda *args: False)
        m.setattr(counter, "_DERIVED", {})
        assert forecast(tiny_prior, config, plan) == again


def test_a_copy_on_meta_has_no_data_and_leaves_the_prior_alone(tiny_prior):
    meta = on_meta(tiny_prior)
    assert all(p.is_meta and not p.requires_grad for m in meta.modules for p in m.parameters())
    assert not any(p.is_meta for m in tiny_prior.modules for p in m.parameters())
    # the schedule is arithmetic, not memory
    assert torch.equal(meta.alpha_bar, tiny_prior.alpha_bar)


@pytest.mark.parametrize("plan, calls", [(Plan(), 8), (Plan(steps=3), 11), (Plan(steps=-1), 16)])
def test_probe_is_the_time_of_the_whole_from_short_passes(tiny_prior, monkeypatch, plan, calls):
    """With calls of the noise predictor for seconds.

    Each kept step is one, each recomputed one two.
    """
    seen, predict = [], tiny_prior.predict_noise
    monkeypatch.setattr(tiny_prior, "predict_noise", lambda *args: seen.append(1) or predict(*args))

    def counted(function, device, repeats):
        seen.clear()
        function()
        return float(len(seen))

    monkeypatch.setattr(seconds, "seconds_of", counted)
    assert probe(tiny_prior, settings(sampler=SamplerConfig(steps=8)), plan) == calls


def test_seconds_are_the_median_after_a_warm_up(monkeypatch):
    clock, called = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0]), []
    monkeypatch.setattr(seconds.time, "perf_counter", lambda: next(clock))
    assert seconds.seconds_of(lambda: called.append(1), "cpu", 3) == 2.0 and len(called) == 4


def test_the_fastest_plan_that_fits_is_chosen(tiny_prior, monkeypatch):
    config = settings(
        plan=Plan(precision="bfloat16", compile="default"), sampler=SamplerConfig(steps=2)
    )
    rows = list(forecasts(tiny_prior, config))
    assert [r.name for r in rows] == list(ordered_plans(2))
    # what is counted is not compiled; what will run is
    assert {(r.plan.precision, r.plan.compile) for r in rows} == {("bfloat16", "default")}
    # counted once is enough
    monkeypatch.setattr(fallback, "forecasts", lambda *args, **options: iter(rows))
    for row in rows:
        room = row.total_bytes / 0.9 + 1
        first = next(r for r in rows if r.total_bytes <= 0.9 * room)
        assert choose(tiny_prior, config, available=room) == first
    with pytest.raises(
        MemoryError,
        match=r"no plan fits in 0\.0 GiB: .* needs .* lower ipc = 1, size = 32 or batch_real = 16",
    ):
        choose(tiny_prior, config, available=1000)
    # all of it fits into this machine
    assert FallbackPlans(tiny_prior, replace(config, plan=AUTO)).plan == rows[0].plan


@pytest.mark.parametrize(
    "message", ["CUDA out of memory", "[enforce fail] DefaultCPUAllocator: can't allocate memory"]
)
def test_out_of_memory_goes_down_one_plan_and_says_so(digits, tiny_prior, monkeypatch, message):
    config, real, calls = settings(), run._match, []

    def short(setup, *rest):
        calls.append(setup.space.plan)
        if len(calls) == 2:
            raise torch.OutOfMemoryError(message) if "CUDA" in message else RuntimeError(message)
        return real(setup, *rest)

    whole = distil(config, data=digits, prior=tiny_prior, progress=False)
    monkeypatch.setattr(run, "_match", short)
    with pytest.warns(
        UserWarning, match=r"out of memory: from here on the plan is 'decoder'.*instead of"
    ):
        made = distil(config, data=digits, prior=tiny_prior, progress=False)
    assert calls == [PLANS["one-pass"]] * 2 + [PLANS["decoder"]] * 2 and len(made.history) == 3
    assert (made.images() - whole.images()).abs().max() < 1e-4 and made.recipe["plan"]["decoder"]


def test_out_of_memory_twice_stops_with_the_forecast_and_advice(
    digits, tiny_prior, tmp_path, monkeypatch
):
    config = settings(checkpoint_every=1)

    def never(*args):
        raise torch.OutOfMemoryError("no memory")

    real = run._match
    monkeypatch.setattr(run, "_match", lambda *args: real(*args) if args[-1] == 0 else never())
    with (
        pytest.warns(UserWarning, match="out of memory"),
        pytest.raises(
            MemoryError,
            match=r"out of memory again, under a plan that was predicted to need .* GiB "
            r"\(no memory\); .* lower ipc",
        ),
    ):
        distil(config, data=digits, prior=tiny_prior, out=tmp_path, progress=False)
    monkeypatch.undo()
    other = replace(config, plan=PLANS["per-step"])  # another plan is the same run: it goes on
    made = distil(other, data=digits, prior=tiny_prior, out=tmp_path, progress=False)
    assert len(made.history) == 3


def test_other_errors_are_not_taken_for_it(digits, tiny_prior, monkeypatch):
    def broken(*args):
        raise RuntimeError("something else")

    monkeypatch.setattr(run, "_match", broken)
    with pytest.raises(RuntimeError, match="something else"):
        distil(settings(), data=digits, prior=tiny_prior, progress=False)
    assert not out_of_memory(ValueError("memory")) and out_of_memory(MemoryError())


@pytest.mark.parametrize("name", ["decoder", "chunks", "two-pass"])
def test_many_images_are_forecast_from_few(tiny_prior, name, monkeypatch):
    """Thirteen images, counted all together and not."""
    config, plan = settings(sampler=SamplerConfig(steps=1)), ordered_plans(2)[name]
    plan = replace(plan, chunk=plan.chunk and min(plan.chunk, 4))
    found = forecast(tiny_prior, config, plan, matching=False, classes=13)
    monkeypatch.setattr(phases, "DIRECT", 10**9)
    whole = forecast(tiny_prior, config, plan, matching=False, classes=13)
    assert found.peak_bytes == pytest.approx(whole.peak_bytes, rel=0.1)
    assert found.held_bytes == pytest.approx(whole.held_bytes, rel=0.02)
    assert found.flops == pytest.approx(whole.flops, rel=0.01)


def test_a_forecast_takes_no_longer_for_more_images(tiny_prior, monkeypatch):
    counted = []
    generate = forecast_module.generate_images

    def counting(prior, config, plan, drawn):
        counted.append(len(drawn.Z))
        return generate(prior, config, plan, drawn)

    monkeypatch.setattr(forecast_module, "generate_images", counting)
    config = settings(sampler=SamplerConfig(steps=1))
    for plan in (PLANS["one-pass"], PLANS["decoder"], PLANS["two-pass"]):
        small, large = (
            forecast(tiny_prior, replace(config, ipc=ipc), plan, matching=False).peak_bytes
            for ipc in (1000, 10_000)
        )
        assert 9 < large / small < 11
    assert max(counted) <= 12


def test_cuda_graphs_are_asked_for_only_where_nothing_is_recomputed(tiny_prior, monkeypatch):
    monkeypatch.setattr(forecast_module, "forecast", lambda prior, config, plan, **_: plan)
    config = settings(plan=replace(AUTO, compile="reduce-overhead"))
    first, *others = forecasts(tiny_prior, config, matching=False)
    assert first.compile == "reduce-overhead" and {p.compile for p in others} == {"default"}

"""Section 3.3: every plan computes the same images and the same gradients of Z and c."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0

from ld3m_min.backends import prepared
from ld3m_min.backprop import (
    AUTO,
    ONE_PASS,
    PER_STEP,
    TWO_PASS,
    Plan,
    decode_with_plan,
    generate_with_plan,
    ordered_plans,
)
from ld3m_min.networks import build_network
from ld3m_min.planner.counter import Counter
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import PAPER_RESIDUAL, PUBLIC_RESIDUAL, Residual
from ld3m_min.sampler import SamplerConfig

OTHERS = {
    **ordered_plans(4),
    "selective, the decoder in chunks of 2": Plan(
        steps=-1, selective=True, decoder=True, decoder_chunk=2
    ),
    "selective in two passes": Plan(steps=-1, selective=True, two_pass=True, chunk=3),
    "channels last": Plan(channels_last=True),
    "two-pass, chunks of 2": Plan(steps=-1, decoder=True, two_pass=True, chunk=2),
    "two-pass, nothing inside": Plan(two_pass=True, chunk=3),
    "the first 2 steps": Plan(steps=2),
    "decoder": Plan(decoder=True),
    "chunks of 2": Plan(chunk=2),
}


@pytest.fixture
def problem(tiny_prior):
    prior = tiny_prior.to(dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    Z, noise = (torch.randn(5, 3, 8, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return prior, Z, prior.class_conditioning(torch.arange(5)), noise


def gradients(problem, config, plan):
    prior, Z, c, noise = problem
    Z, c = Z.clone().requires_grad_(), c.clone().requires_grad_()
    images = generate_with_plan(prior, Z, c, noise, config, plan)
    (
        images * torch.linspace(-1, 1, images.numel(), dtype=images.dtype).view_as(images)
    ).sum().backward()
    return images.detach(), Z.grad, c.grad


@pytest.mark.parametrize(
    "residual",
    [PUBLIC_RESIDUAL, PAPER_RESIDUAL, Residual("noise", "clean"), Residual("noise", "noised")],
)
def test_plans_agree_to_1e_10_in_float64(problem, residual):
    config = SamplerConfig(steps=4, residual=residual)
    first = gradients(problem, config, ONE_PASS)
    assert all(x.abs().max() > 0 for x in first)
    for name, plan in OTHERS.items():
        for a, b in zip(first, gradients(problem, config, plan), strict=True):
            assert (a - b).abs().max() <= 1e-10 * max(1, a.abs().max().item()), name


def test_weights_get_no_gradient(problem):
    gradients(problem, SamplerConfig(steps=2), ONE_PASS)
    assert all(
        p.grad is None and not p.requires_grad for m in problem[0].modules for p in m.parameters()
    )


def test_the_gradient_of_c_is_a_sum_over_steps(problem):
    """Equation (8) as printed would make it zero: z_T does not depend on c."""
    prior, Z, c, noise = problem
    config = SamplerConfig(steps=4)
    per_step = []

    class Tap:  # the same prior, with a fresh leaf for c at every step
        def __getattr__(self, name):
            return getattr(prior, name)

        def predict_noise(self, z, t, c):
            leaf = c.detach().clone().requires_grad_()
            per_step.append(leaf)
            return prior.predict_noise(z, t, leaf)

    images = generate_with_plan(Tap(), Z.clone().requires_grad_(), c, noise, config)
    images.square().sum().backward()
    # the conditional half of the guidance batch
    total = sum(leaf.grad.chunk(2)[1] for leaf in per_step)
    c = c.clone().requires_grad_()
    generate_with_plan(prior, Z, c, noise, config).square().sum().backward()
    assert (total - c.grad).abs().max() < 1e-10 and c.grad.abs().max() > 0


def test_decode_with_plan(problem):
    prior, Z, _, _ = problem
    out = []
    for plan in (ONE_PASS, PER_STEP, TWO_PASS):
        z = Z.clone().requires_grad_()
        decode_with_plan(prior, z, plan).square().sum().backward()
        out.append(z.grad)
    assert all((g - out[0]).abs().max() < 1e-10 for g in out)


def test_without_gradients_nothing_is_kept(problem):
    prior, Z, c, noise = problem
    with torch.no_grad():
        assert not generate_with_plan(
            prior, Z, c, noise, SamplerConfig(steps=2), TWO_PASS
        ).requires_grad


def test_without_gradients_every_plan_gives_the_same_image(problem):
    prior, Z, c, noise = problem
    with torch.no_grad():
        first = generate_with_plan(prior, Z, c, noise, SamplerConfig(steps=4))
        for name, plan in OTHERS.items():
            assert (
                generate_with_plan(prior, Z, c, noise, SamplerConfig(steps=4), plan) - first
            ).abs().max() < 1e-10, name


def peak(problem, plan):
    with Counter([p for m in problem[0].modules for p in m.parameters()]) as counter:
        gradients(problem, SamplerConfig(steps=6), plan)
    return counter.peak


def test_recomputing_keeps_less(problem):
    found = {name: peak(problem, plan) for name, plan in ordered_plans(6).items()}
    assert (
        found["one-pass"] > found["decoder"] > found["half"] > found["per-step"] > found["chunks"]
    )
    assert found["per-step"] >= found["two-pass"]
    assert found["one-pass"] > found["selective"] > found["per-step"]
    assert found["per-step"] < found["one-pass"] / 2


@pytest.mark.parametrize("T", [5, 10])
def test_bfloat16_keeps_the_direction_of_the_gradient(T):
    """On the shipped prior.

    Cosine 0.999 with float32, of Z and of c; latents, images and gradients stay float32.
    """
    prior = LatentDiffusionPrior.from_pretrained("digits")
    g = torch.Generator().manual_seed(0)
    Z, noise = (torch.randn(4, 3, 8, 8, generator=g) for _ in range(2))
    problem = prior, Z, prior.class_conditioning(torch.arange(4)), noise
    full, low = (
        gradients(problem, SamplerConfig(steps=T), Plan(precision=p))
        for p in ("float32", "bfloat16")
    )
    assert all(x.dtype == torch.float32 for x in low)
    for a, b in zip(full[1:], low[1:], strict=True):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999
    assert not torch.equal(full[0], low[0]) and (full[0] - low[0]).abs().max() < 0.1
    assert peak(problem, Plan(precision="bfloat16")) < 0.65 * peak(problem, ONE_PASS)


def test_a_copy_in_half_precision_is_made_once_and_leaves_the_prior_alone(tiny_prior):
    before = [p.clone() for m in tiny_prior.modules for p in m.parameters()]
    low = prepared(tiny_prior, Plan(precision="bfloat16"))
    assert (
        prepared(tiny_prior, Plan(precision="bfloat16", steps=-1)) is low
        and prepared(tiny_prior, PER_STEP) is tiny_prior
    )
    denoiser = low.copies[-1]
    # the ends stay
    assert {p.dtype for p in denoiser.parameters()} == {torch.bfloat16, torch.float32}
    assert denoiser.conv_out.weight.dtype == torch.float32 and low.classes == tiny_prior.classes
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before, (p for m in tiny_prior.modules for p in m.parameters()), strict=True
        )
    )


def test_attention_to_a_single_token_is_its_value(tiny_prior):
    """The shortcut is exact, and steps aside for more tokens and for trained queries."""
    prior = tiny_prior.to(dtype=torch.float64)
    plain = prior._like(denoiser=copy.deepcopy(prior.denoiser))
    plain.denoiser.set_attn_processor(AttnProcessor2_0())
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3, 3, 8, 8, generator=g, dtype=torch.float64)
    for tokens in (1, 2):
        found = []
        for one in (prior, plain):
            x = z.clone().requires_grad_()
            c = torch.randn(
                3, tokens, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64
            ).requires_grad_()
            one.denoiser(x, torch.tensor([5, 300, 900]), c).sample.square().sum().backward()
            found.append((x.grad, c.grad))
        assert all(
            (a - b).abs().max() <= 1e-12 * b.abs().max() and b.abs().max() > 0
            for a, b in zip(*found, strict=True)
        )
    prior.denoiser.requires_grad_(True)
    prior.denoiser(
        z, torch.tensor([5, 300, 900]), c[:, :1].detach()
    ).sample.square().sum().backward()
    assert all(p.grad is not None for p in prior.denoiser.parameters())


def test_compiled_code_cannot_be_differentiated_twice_and_says_so():
    """Why matching stays eager.

    Should this fail, PyTorch has learned it, and compiling the matching is worth a measurement.
    """
    network = build_network("ConvNet", size=16, width=4, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(network, backend="aot_eager")
    loss = F.cross_entropy(
        compiled(torch.rand(2, 3, 16, 16, requires_grad=True)), torch.tensor([0, 1])
    )
    with pytest.raises(RuntimeError, match="double backward"):
        grads = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
        sum(g.square().sum() for g in grads).backward()


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": -2},
        {"chunk": 0},
        {"decoder": True, "decoder_chunk": 0},
        {"decoder_chunk": 2},
        {"precision": "float16"},
        {"compile": "fast"},
        {"compile": "reduce-overhead", "steps": -1},
    ],
)
def test_plan_out_of_range(bad):
    with pytest.raises(ValueError, match=r"(?i)plan"):
        Plan(**bad)


def test_an_undecided_plan_is_refused(problem):
    prior, Z, c, noise = problem
    with pytest.raises(ValueError, match="not yet decided"):
        generate_with_plan(
            prior, Z, c, noise, SamplerConfig(steps=2), replace(AUTO, precision="bfloat16")
        )

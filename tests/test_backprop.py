"""Section 3.3: every plan computes the same images and the same gradients of Z and c."""
import pytest
import torch

from ld3m_min.backprop import ONE_PASS, PER_STEP, PLANS, TWO_PASS, Plan, compare_plans, decode_with_plan, generate_with_plan
from ld3m_min.config import preset
from ld3m_min.sampler import NO_RESIDUAL, PAPER_RESIDUAL, PUBLIC_RESIDUAL, SamplerConfig

OTHERS = {
    "per-step": PER_STEP,
    "two-pass": TWO_PASS,
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
    (images * torch.linspace(-1, 1, images.numel(), dtype=images.dtype).view_as(images)).sum().backward()
    return images.detach(), Z.grad, c.grad


@pytest.mark.parametrize("residual", [PUBLIC_RESIDUAL, PAPER_RESIDUAL, NO_RESIDUAL])
def test_plans_agree_to_1e_10_in_float64(problem, residual):
    config = SamplerConfig(steps=4, residual=residual)
    first = gradients(problem, config, ONE_PASS)
    assert all(x.abs().max() > 0 for x in first)
    for name, plan in OTHERS.items():
        for a, b in zip(first, gradients(problem, config, plan), strict=True):
            assert (a - b).abs().max() <= 1e-10 * max(1, a.abs().max().item()), name


def test_weights_get_no_gradient(problem):
    gradients(problem, SamplerConfig(steps=2), ONE_PASS)
    assert all(p.grad is None and not p.requires_grad for m in problem[0].modules for p in m.parameters())


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
    total = sum(leaf.grad.chunk(2)[1] for leaf in per_step)  # the conditional half of the guidance batch
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
        assert not generate_with_plan(prior, Z, c, noise, SamplerConfig(steps=2), TWO_PASS).requires_grad


def test_recomputing_keeps_less(tiny_prior):
    rows = {r.name: r.saved_bytes for r in compare_plans(preset("smoke"), tiny_prior)}
    assert set(rows) == set(PLANS)
    assert rows["two-pass"] < rows["per-step"] < rows["one-pass"]


@pytest.mark.parametrize("bad", [{"steps": -2}, {"chunk": 0}])
def test_plan_out_of_range(bad):
    with pytest.raises(ValueError, match="plan"):
        Plan(**bad)

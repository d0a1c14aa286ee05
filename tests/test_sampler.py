"""Equations (1) to (6): against closed forms, and what must hold for any prior."""

import math

import pytest
import torch

from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import (
    DECAYS,
    INTO,
    NO_RESIDUAL,
    PAPER_RESIDUAL,
    PUBLIC_RESIDUAL,
    SOURCE,
    Residual,
)
from ld3m_min.sampler import SamplerConfig, ancestral_noise, generate, generate_latents, timesteps


def closed_form(prior, Z, c, noise, config):
    """The chain as an affine map.

    With a linear predictor, z_k = A Z + N noise + C, carried as three numbers per image.
    """
    ts = timesteps(config.steps)
    ab = [float(prior.alpha_bar[t]) for t in ts]
    prev = [float(prior.alpha_bar[0]), *ab[:-1]]
    n, s = len(ts), config.guidance_scale
    cbar = c.mean((1, 2))
    ubar = torch.full_like(cbar, 0.25)
    A, N, C = math.sqrt(ab[-1]), math.sqrt(1 - ab[-1]), torch.zeros_like(cbar)
    A_T, N_T = A, N
    for k in reversed(range(n)):
        a, ap, t = ab[k], prev[k], ts[k]
        # e = p z + q (1 + t/1000) (u + s (c - u))
        eA, eN, eC = (
            prior.p * A,
            prior.p * N,
            prior.p * C + prior.q * (1 + t / 1000) * (ubar + s * (cbar - ubar)),
        )
        xA, xN, xC = (
            (z - math.sqrt(1 - a) * e) / math.sqrt(a) for z, e in ((A, eA), (N, eN), (C, eC))
        )
        w = config.residual.weight(k, n)
        rA, rN = (A_T, N_T) if config.residual.source == "noised" else (1.0, 0.0)
        if config.residual.into == "noise":  # e (1 - w) + w (z - sqrt(a) r) / sqrt(1 - a)
            eA, eN, eC = (
                (1 - w) * e + w * (z - math.sqrt(a) * r) / math.sqrt(1 - a)
                for e, z, r in ((eA, A, rA), (eN, N, rN), (eC, C, 0.0))
            )
            xA, xN, xC = (
                (z - math.sqrt(1 - a) * e) / math.sqrt(a) for z, e in ((A, eA), (N, eN), (C, eC))
            )
        if config.residual.into == "x0":
            xA, xN, xC = (1 - w) * xA + w * rA, (1 - w) * xN + w * rN, (1 - w) * xC
        A, N, C = (
            math.sqrt(ap) * x + math.sqrt(1 - ap) * e for x, e in ((xA, eA), (xN, eN), (xC, eC))
        )
        if config.residual.into == "mean":
            A, N, C = (1 - w) * A + w * rA, (1 - w) * N + w * rN, (1 - w) * C
    return A, N, C


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("source", ["noised", "clean"])
@pytest.mark.parametrize("steps, scale", [(1, 3.0), (2, 1.0), (10, 3.0)])
@pytest.mark.parametrize("decay", ["linear", "constant"])
def test_linear_predictor_has_the_closed_form_with_its_gradients(
    linear_prior, codes, into, source, steps, scale, decay
):
    prior, (Z, c, noise) = linear_prior(), codes
    config = SamplerConfig(
        steps=steps, guidance_scale=scale, residual=Residual(into, source, decay)
    )
    z = generate_latents(prior, Z, c, noise, config)
    A, N, C = closed_form(prior, Z, c, noise, config)
    expected = A * Z + N * noise + C.view(-1, 1, 1, 1)
    weights = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).view_as(z)
    ours, theirs = (torch.autograd.grad((weights * v).sum(), (Z, c)) for v in (z, expected))
    scale = expected.abs().max().item()
    assert (z - expected).abs().max() <= 1e-10 * max(1, scale)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1, b.abs().max().item())


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 30, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_zero_output_leaves_the_quantised_code(linear_prior, codes, steps, seed):
    """The public code's variant with e = 0 is sqrt(alpha_bar_0) times quantised Z.

    Whatever T and the noise.
    """
    prior, (Z, c, _) = linear_prior(p=0.0, q=0.0, codes=0.5), codes
    noise = torch.randn(Z.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = generate_latents(prior, Z, c, noise, SamplerConfig(steps=steps, residual=PUBLIC_RESIDUAL))
    assert (z - math.sqrt(0.9985) * prior.quantize(Z)).abs().max() < 1e-12
    (grad,) = torch.autograd.grad(z.sum(), Z)
    assert (grad - math.sqrt(0.9985)).abs().max() < 1e-12


@pytest.mark.parametrize("residual", [PAPER_RESIDUAL, PUBLIC_RESIDUAL, NO_RESIDUAL])
def test_equation_4_is_the_ddpm_mean_for_eta_1(linear_prior, codes, residual):
    """With eta = 1 the mean of each step is equation (4).

    mu = (z - (1 - alpha) / sqrt(1 - gamma) f) / sqrt(alpha)
    """
    prior, (Z, c, noise) = linear_prior(), codes
    if residual is PUBLIC_RESIDUAL:
        residual = Residual("x0", "clean", "none")
    seen = []
    config = SamplerConfig(steps=5, eta=1.0, residual=residual)
    generate_latents(prior, Z, c, noise, config, callback=seen.append)
    fresh, ts = ancestral_noise(noise, 5), timesteps(5)
    z_T = seen[0].z
    for step in seen:
        gamma = float(prior.alpha_bar[step.t])
        gamma_previous = float(
            prior.alpha_bar[ts[step.index - 1]] if step.index else prior.alpha_bar[0]
        )
        alpha = gamma / gamma_previous
        mu = (step.z - (1 - alpha) / math.sqrt(1 - gamma) * step.noise_prediction) / math.sqrt(
            alpha
        )
        sigma = math.sqrt((1 - gamma_previous) / (1 - gamma) * (1 - alpha))
        if residual.into == "mean":  # equation (6), t = k + 1 of T = 5
            t = step.index + 1
            mu = (1 - t / 5) * mu + t / 5 * z_T
        assert (step.z_next - mu - sigma * fresh[step.index]).abs().max() < 1e-9


class TrueNoise:
    """A prior that knows Z: it predicts the very noise that makes the state of it."""

    conditional, latent_channels, train_steps = False, 2, 1000

    def __init__(self, Z, alpha_bar):
        self.Z, self.alpha_bar = Z, alpha_bar

    def predict_noise(self, z, t, c):
        a = self.alpha_bar[t].view(-1, 1, 1, 1)
        return (z - a.sqrt() * self.Z) / (1 - a).sqrt()

    def quantize(self, z):
        return z


@pytest.mark.parametrize("decay", DECAYS)
def test_noise_of_the_clean_code_leads_back_along_the_forward_process(linear_prior, codes, decay):
    """Z mixed into a prediction that is of Z already changes nothing, whatever the weights.

    Every state is the forward process of Z and the one noise.
    """
    (Z, _, noise), alpha_bar, seen = codes, linear_prior().alpha_bar, []
    config = SamplerConfig(steps=10, guidance_scale=1.0, residual=Residual("noise", "clean", decay))
    z = generate_latents(TrueNoise(Z, alpha_bar), Z, None, noise, config, callback=seen.append)

    def forward(t):
        return alpha_bar[t].sqrt() * Z + (1 - alpha_bar[t]).sqrt() * noise

    for step in seen:
        assert (step.z - forward(step.t)).abs().max() < 1e-9
        assert (step.pred_x0 - Z).abs().max() < 1e-9
    assert (z - forward(0)).abs().max() < 1e-9


@pytest.mark.parametrize("source", ["noised", "clean"])
def test_state_is_made_of_the_mixed_latent_and_the_mixed_noise(linear_prior, codes, source):
    """Into the noise, DDIM's two parts still make the state that entered; into x0 they do not."""
    Z, c, noise = codes
    prior, gaps = linear_prior(), {}
    for into in ("noise", "x0"):
        seen, gaps[into] = [], []
        config = SamplerConfig(steps=10, residual=Residual(into, source))
        generate_latents(prior, Z, c, noise, config, callback=seen.append)
        ab = {s.index: float(prior.alpha_bar[s.t]) for s in seen}
        for step in seen:
            a, before = ab[step.index], ab.get(step.index - 1, float(prior.alpha_bar[0]))
            # the noise that the step went on with, from equation (4) with eta = 0
            e = (step.z_next - math.sqrt(before) * step.pred_x0) / math.sqrt(1 - before)
            made = math.sqrt(a) * step.pred_x0 + math.sqrt(1 - a) * e
            gaps[into].append((made - step.z).abs().max().item())
            mixed = (1 - step.weight) * step.predicted_x0 + step.weight * (
                Z if source == "clean" else seen[0].z
            )
            assert (step.pred_x0 - mixed).abs().max() < 1e-9
    assert max(gaps["noise"]) < 1e-9 and max(gaps["x0"]) > 1e-2


def test_first_prediction_is_discarded_where_it_is_mixed_into_the_noise(linear_prior, codes):
    """The first weight is 1, so that c reaches z_0 by the later predictions alone."""
    Z, c, noise = codes
    residual = Residual("noise", "clean")
    one = generate_latents(linear_prior(), Z, c, noise, SamplerConfig(1, residual=residual))
    a, last = (float(linear_prior().alpha_bar[t]) for t in (1, 0))
    e = (math.sqrt(a) * Z + math.sqrt(1 - a) * noise - math.sqrt(a) * Z) / math.sqrt(1 - a)
    assert (one - math.sqrt(last) * Z - math.sqrt(1 - last) * e).abs().max() < 1e-12
    assert torch.autograd.grad(one.sum(), c)[0].abs().max() == 0
    two = generate_latents(linear_prior(), Z, c, noise, SamplerConfig(2, residual=residual))
    assert torch.autograd.grad(two.sum(), c)[0].abs().min() > 0


def test_equation_6_discards_the_first_prediction_but_for_the_noise(linear_prior, codes):
    Z, c, noise = codes
    seen = []
    generate_latents(
        linear_prior(),
        Z,
        c,
        noise,
        SamplerConfig(steps=4, residual=PAPER_RESIDUAL),
        callback=seen.append,
    )
    assert seen[0].weight == 1 and torch.equal(seen[0].z_next, seen[0].z)


def test_weights_of_paper_and_public_code():
    assert [Residual("mean", "noised").weight(k, 4) for k in (3, 2, 1, 0)] == [1, 0.75, 0.5, 0.25]
    assert [Residual("x0", "quantized").weight(k, 5) for k in (4, 3, 2, 1, 0)] == [
        1,
        0.75,
        0.5,
        0.25,
        0,
    ]
    assert [Residual("noise", "clean").weight(k, 3) for k in (2, 1, 0)] == [1, 0.5, 0]
    for decay, f in DECAYS.items():
        values = [f(k / 10) for k in range(11)]
        assert all(0 <= v <= 1 for v in values)
        assert values == sorted(values), decay
        if decay not in ("constant", "none"):
            assert values[0] == 0 and abs(values[-1] - 1) < 1e-12


def test_timesteps():
    assert timesteps(10) == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901]
    assert len(timesteps(30)) == 31
    assert timesteps(1) == [1]
    assert timesteps(1000) == list(range(1000))
    for steps in range(1, 1001):
        assert max(timesteps(steps)) < 1000 and len(timesteps(steps)) >= steps
    for bad in (0, 1001, -3):
        with pytest.raises(ValueError, match="out of range"):
            timesteps(bad)


def test_schedule_equals_diffusers():
    scheduler = ldm_scheduler()
    assert (alphas_cumprod(scheduler) - scheduler.alphas_cumprod.double()).abs().max() < 1e-6


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("source", SOURCE)
def test_a_batch_is_its_single_images(tiny_prior, digits, eta, source):
    prior = tiny_prior.to(dtype=torch.float64)
    g = torch.Generator().manual_seed(3)
    Z, noise = (torch.randn(3, 3, 8, 8, generator=g, dtype=torch.float64) for _ in range(2))
    c = prior.class_conditioning(torch.tensor([1, 5, 7]))
    config = SamplerConfig(steps=4, eta=eta, residual=Residual("x0", source))
    whole = generate(prior, Z, c, noise, config)
    single = torch.cat(
        [generate(prior, Z[i : i + 1], c[i : i + 1], noise[i : i + 1], config) for i in range(3)]
    )
    assert (whole - single).abs().max() < 1e-10
    assert whole.min() >= 0 and whole.max() <= 1


def test_guidance_1_is_no_guidance(tiny_prior):
    Z, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    c = tiny_prior.class_conditioning(torch.tensor([0, 1]))
    calls = []
    tiny_prior.denoiser.register_forward_pre_hook(
        lambda m, a, k: calls.append(len(a[0])), with_kwargs=True
    )
    plain = generate_latents(tiny_prior, Z, c, noise, SamplerConfig(steps=4, guidance_scale=1.0))
    assert calls == [2, 2, 2, 2]  # one network call a step, without the null class
    nearly = generate_latents(
        tiny_prior, Z, c, noise, SamplerConfig(steps=4, guidance_scale=1 + 1e-6)
    )
    assert (plain - nearly).abs().max() < 1e-3
    assert not torch.equal(
        plain, generate_latents(tiny_prior, Z, c, noise, SamplerConfig(steps=4, guidance_scale=3.0))
    )


def test_same_noise_same_image_other_noise_other_image(tiny_prior):
    Z, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    c = tiny_prior.class_conditioning(torch.tensor([0, 1]))
    for config in (SamplerConfig(steps=3), SamplerConfig(steps=3, eta=0.5)):
        first = generate(tiny_prior, Z, c, noise, config)
        assert torch.equal(first, generate(tiny_prior, Z, c, noise, config))
        assert not torch.equal(first, generate(tiny_prior, Z, c, noise.flip(0), config))


def test_callback_sees_every_step(tiny_prior):
    Z, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    c = tiny_prior.class_conditioning(torch.tensor([0, 1]))
    seen = []
    z = generate_latents(tiny_prior, Z, c, noise, SamplerConfig(steps=4), callback=seen.append)
    assert [s.index for s in seen] == [3, 2, 1, 0] and [s.t for s in seen] == timesteps(4)[::-1]
    assert torch.equal(seen[-1].z_next, z)
    assert all(
        s.noise_prediction.shape == s.predicted_x0.shape == s.pred_x0.shape == z.shape for s in seen
    )
    assert torch.equal(seen[0].pred_x0, Z)  # weight 1 of the clean code at the first step


@pytest.mark.parametrize(
    "change, message",
    [
        ({"Z": torch.zeros(2, 4, 8, 8)}, "latents are"),
        ({"noise": torch.zeros(1, 3, 8, 8)}, "own forward noise"),
        ({"c": None}, "class_conditioning"),
        ({"c": torch.zeros(3, 1, 16)}, "class_conditioning"),
    ],
)
def test_what_does_not_fit_is_named(tiny_prior, change, message):
    values = {
        "Z": torch.zeros(2, 3, 8, 8),
        "c": torch.zeros(2, 1, 16),
        "noise": torch.zeros(2, 3, 8, 8),
    } | change
    with pytest.raises(ValueError, match=message):
        generate(tiny_prior, values["Z"], values["c"], values["noise"])


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"steps": 2.5}, {"guidance_scale": float("nan")}, {"eta": 2.0}]
)
def test_config_out_of_range(bad):
    with pytest.raises(ValueError):
        SamplerConfig(**bad)


@pytest.mark.parametrize("bad", [{"into": "z"}, {"source": "image"}, {"decay": "fast"}])
def test_unknown_residual_lists_the_choices(bad):
    with pytest.raises(ValueError, match="choose"):
        Residual(**bad)

"""Where a chain starts and where it is pulled to: against chains written out by hand."""

import math

import pytest
import torch

from ld3m_min.errors import InputError
from ld3m_min.guidance import from_the_middle, towards
from ld3m_min.residual import NO_RESIDUAL
from ld3m_min.sampler import SamplerConfig, denoise, guided_noise, timesteps

PLAIN = SamplerConfig(steps=10, guidance_scale=3.0, residual=NO_RESIDUAL)


def gamma(prior, t):
    return float(prior.alpha_bar[t])


def ddim(prior, z, c, times, predict):
    """DDIM from the first of some descending times to the end, as Song et al. write it."""
    for t, after in zip(times, [*times[1:], 0], strict=True):
        e = predict(z, t)
        x0 = (z - math.sqrt(1 - gamma(prior, t)) * e) / math.sqrt(gamma(prior, t))
        z = math.sqrt(gamma(prior, after)) * x0 + math.sqrt(1 - gamma(prior, after)) * e
    return z


@pytest.mark.parametrize(
    "strength, taken", [(1e-3, 1), (0.1, 1), (0.3, 3), (0.7, 7), (0.99, 10), (1.0, 10)]
)
def test_a_start_in_the_middle_is_the_forward_process(linear_prior, codes, strength, taken):
    prior, (Z, c, noise) = linear_prior(), codes
    Z = Z.detach()
    asked, seen = [], []
    predict_noise = prior.predict_noise
    prior.predict_noise = lambda z, t, c: asked.append(int(t[0])) or predict_noise(z, t, c)
    apply = from_the_middle(prior, noise, PLAIN, strength)
    found = denoise(prior, Z, c, noise, PLAIN, callback=seen.append, apply=apply)
    times = timesteps(10)[::-1][10 - taken :]
    assert asked == times  # once a step, and never before the start
    first = math.sqrt(gamma(prior, times[0])) * Z + math.sqrt(1 - gamma(prior, times[0])) * noise
    assert (seen[10 - taken].z - first).abs().max() < 1e-10
    expected = ddim(prior, first, c, times, lambda z, t: guided_noise(prior, 3.0, z, c, t))
    assert (found - expected).abs().max() < 1e-9


@pytest.mark.parametrize("until, guided", [(0.5, 5), (0.0, 0), (1.0, 10), (0.3, 3)])
def test_modes_pull_as_algorithm_1_says(linear_prior, codes, until, guided):
    prior, (Z, c, noise) = linear_prior(), codes
    modes, nothing, scale = Z.detach(), torch.zeros_like(Z), 0.1
    seen = []
    apply = towards(prior, modes, PLAIN, scale=scale, until=until)
    denoise(prior, nothing, c, noise, PLAIN, callback=seen.append, apply=apply)
    for i, step in enumerate(seen):
        g = gamma(prior, step.t)
        e = guided_noise(prior, 3.0, step.z, c, step.t)
        x0 = (step.z - math.sqrt(1 - g) * e) / math.sqrt(g)
        pull = scale * (1 - g) / math.sqrt(g) if i < guided else 0.0  # in terms of the clean latent
        wanted = x0 + pull * (modes - x0)
        assert (step.predicted_x0 - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_a_scale_of_zero_is_the_plain_chain(tiny_prior):
    modes, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    c, nothing = tiny_prior.class_conditioning(torch.tensor([0, 1])), torch.zeros_like(noise)
    plain = denoise(tiny_prior, nothing, c, noise, PLAIN)
    for options in ({"scale": 0.0}, {"until": 0.0}):
        apply = towards(tiny_prior, modes, PLAIN, **options)
        assert torch.equal(plain, denoise(tiny_prior, nothing, c, noise, PLAIN, apply=apply))
    apply = towards(tiny_prior, modes, PLAIN)
    assert not torch.equal(plain, denoise(tiny_prior, nothing, c, noise, PLAIN, apply=apply))


def test_what_is_out_of_range_is_refused(linear_prior, codes):
    Z, _, noise = codes
    for strength in (0.0, -0.5, 1.01, math.nan):
        with pytest.raises(InputError, match=r"strength is .* above 0 and at most 1"):
            from_the_middle(linear_prior(), noise, PLAIN, strength)
    for options in ({"scale": -0.1}, {"scale": math.inf}, {"until": 1.1}, {"until": -0.1}):
        with pytest.raises(InputError, match="scale of mode guidance must be 0 or more"):
            towards(linear_prior(), Z, PLAIN, **options)

"""The whole generation, Z and c to image, with its gradients, against the public LD3M code's."""

import pytest
import torch

from ld3m_min.backprop import PLANS, generate_with_plan
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.residual import PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate, generate_latents

from ._data import DATA, largest, load_json, load_tensors, relative

SPEC = load_json("ld3m_generate")
T = load_tensors("ld3m_generate")


@pytest.fixture(scope="module")
def prior():
    return LatentDiffusionPrior.from_compvis(
        DATA / "compvis_tiny.safetensors", load_json("compvis_tiny")
    )


def config(case):
    s = SPEC["cases"][case]
    return SamplerConfig(steps=s["T"], guidance_scale=s["guidance_scale"], residual=PUBLIC_RESIDUAL)


def deviations(prior, case):
    """Quantity -> (deviation, tolerance)."""
    tolerance = SPEC["cases"][case]["tolerance"]
    Z, c, seen = T["Z"].clone().requires_grad_(), T["c"].clone().requires_grad_(), []
    latent = generate_latents(prior, Z, c, T["noise"], config(case), callback=seen.append)
    grads = torch.autograd.grad((T["v_latent"] * latent).sum(), (Z, c))
    image = generate(prior, Z, c, T["noise"], config(case))
    image_grads = torch.autograd.grad((T["w_image"] * image).sum(), (Z, c))
    found = {
        "latent": largest(latent.detach(), T[f"{case}.latent"]),
        "image": largest(image.detach(), T[f"{case}.image"]),
        "pred_x0": largest(torch.stack([s.pred_x0.detach() for s in seen]), T[f"{case}.pred_x0"]),
    }
    for name, (gz, gc) in (("", image_grads), ("_latent", grads)):
        found[f"grad_Z{name}"] = relative(gz, T[f"{case}.grad_Z{name}"])
        found[f"grad_c{name}"] = relative(gc, T[f"{case}.grad_c{name}"])
    return {
        k: (v, next(t for n, t in tolerance[k].items() if n.startswith("suggested")))
        for k, v in found.items()
    }


@pytest.mark.parametrize("case", SPEC["cases"])
def test_latent_image_and_gradients(prior, case):
    for quantity, (deviation, tolerance) in deviations(prior, case).items():
        assert deviation <= tolerance, quantity


def test_every_quantity_of_the_reference_is_compared(prior):
    assert set(deviations(prior, "T10_g1")) == set(SPEC["cases"]["T10_g1"]["tolerance"])


def test_inputs_are_what_the_prior_makes_of_image_and_labels(prior):
    with torch.no_grad():
        assert largest(prior.encode((T["image_encoded"] + 1) / 2), T["Z"]) <= 1e-4
        assert largest(prior.null_conditioning(2), T["uc"]) <= 1e-6


@pytest.mark.parametrize("plan", PLANS)
def test_every_memory_plan_gives_the_reference_gradient(prior, plan):
    Z, c = T["Z"].clone().requires_grad_(), T["c"].clone().requires_grad_()
    image = generate_with_plan(prior, Z, c, T["noise"], config("T10_g3"), PLANS[plan])
    grads = torch.autograd.grad((T["w_image"] * image).sum(), (Z, c))
    for name, grad in zip("Zc", grads, strict=True):
        tolerance = SPEC["cases"]["T10_g3"]["tolerance"][f"grad_{name}"]["suggested_rel_l2"]
        assert relative(grad, T[f"T10_g3.grad_{name}"]) <= tolerance

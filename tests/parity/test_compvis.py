"""A model from a checkpoint in the public layout, part by part; keys of the full-size ones."""

import pytest
import torch

from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.compvis import convert

from ._data import DATA, largest, load_json, load_tensors

SPEC = load_json("compvis_tiny_io")
IO = load_tensors("compvis_tiny_io")


@pytest.fixture(scope="module")
def prior():
    return LatentDiffusionPrior.from_compvis(
        DATA / "compvis_tiny.safetensors", load_json("compvis_tiny")
    )


def tolerance(part):
    return SPEC["tolerance"][part]["suggested_abs"]


@pytest.mark.parametrize("case", "abc")
@torch.no_grad()
def test_noise_prediction(prior, case):
    x, t, c, out = (IO[f"eps.{case}.{k}"] for k in ("x", "t", "context", "out"))
    assert largest(prior.predict_noise(x, t, c), out) <= tolerance("eps")


@pytest.mark.parametrize("case", "ab")
@torch.no_grad()
def test_encoder(prior, case):
    assert largest(
        prior.encode((IO[f"encode.{case}.image"] + 1) / 2), IO[f"encode.{case}.latent"]
    ) <= tolerance("encode")


@torch.no_grad()
def test_quantiser(prior):
    z = IO["quantise.latent"]
    assert largest(prior.quantize(z), IO["quantise.out"]) <= tolerance("quantise")
    indices = prior.autoencoder.quantize(z)[2][2].view(IO["quantise.indices"].shape)
    assert torch.equal(indices, IO["quantise.indices"])


@torch.no_grad()
def test_decoder(prior):
    z = IO["decode.latent"]
    for name, skip in (("quantised", False), ("unquantised", True)):
        image = prior.autoencoder.decode(z, force_not_quantize=skip).sample
        assert largest(image, IO[f"decode.image_{name}"]) <= tolerance("decode")
    assert (
        largest(prior.decode(z), ((IO["decode.image_quantised"] + 1) / 2).clamp(0, 1))
        <= tolerance("decode") / 2
    )


@torch.no_grad()
def test_class_embedding(prior):
    labels = IO["embed.labels"]
    assert largest(prior.class_conditioning(labels), IO["embed.context"]) <= tolerance("embed")
    null = labels == 10  # the last of the 11
    assert null.any() and largest(
        prior.null_conditioning(int(null.sum())), IO["embed.context"][null]
    ) <= tolerance("embed")


MANIFESTS = ("cin256_v2_keys", "ffhq_ldm_vq4_keys", "vq_f4_keys")


def manifest(name):
    """The state dict of a full-size model, without its storage, and its config."""
    spec = load_json(name)
    state = {
        k: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")), device="meta")
        for k, (dtype, shape) in spec["tensors"].items()
    }
    return state, spec["config"], spec


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_key_maps_and_none_is_left_over(name):
    state, config, spec = manifest(name)
    found = convert(state, config)
    parts = {
        "model.diffusion_model.": found.denoiser,
        "first_stage_model.": found.autoencoder,
        "cond_stage_model.": found.class_embedding,
    }
    sizes = spec.get("groups", {"first_stage_model.": {"parameters": spec.get("parameters")}})
    for (
        prefix,
        part,
    ) in parts.items():  # convert is strict: what a part holds came from the file, and all of it
        assert (sum(p.numel() for p in part.parameters()) if part else 0) == sizes.get(
            prefix, {"parameters": 0}
        )["parameters"]
    used = sum(len(part.state_dict()) for part in parts.values() if part)
    # one there, three here
    fused = sum(".qkv." in k for k in state if not k.startswith("model_ema."))
    assert used - 2 * fused + len(found.ignored) == len(state)
    assert {k.split(".")[0] for k in found.ignored if "." in k} <= {"model_ema"}


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("change", ["more", "less", "shape"])
def test_a_key_too_many_or_too_few_is_named(name, change):
    state, config, _ = manifest(name)
    key = next(k for k in state if k.endswith("encoder.down.1.block.0.conv1.weight"))
    if change == "more":
        state[
            "model.diffusion_model.input_blocks.1.5.weight"
            if "model" in key
            else "encoder.extra.weight"
        ] = state[key]
    elif change == "less":
        del state[key]
    else:
        state[key] = state[key][:1]
    expected = {
        "more": "no counterpart under this config: (input_blocks.1.5|encoder.extra).weight",
        "less": r"lacks weights of the autoencoder.*encoder.down_blocks.1.resnets.0.conv1.weight",
        "shape": r"encoder.down_blocks.1.resnets.0.conv1.weight \(1, ",
    }[change]
    with pytest.raises(ValueError, match=expected):
        convert(state, config)


def test_averaged_weights_are_taken_on_request():
    state, config, _ = manifest("ffhq_ldm_vq4_keys")
    copies = [k for k in state if k.startswith("model_ema.diffusion_model")]
    assert len(copies) == 368
    for k in copies:
        if "qkv" not in k:
            state[k] = state[k][:1]  # to tell them from the others
    with pytest.raises(ValueError, match="weights of the U-Net have other shapes"):
        convert(state, config, ema=True)
    convert(state, config)

"""Priors of every kind: generation, gradients, files; and what is refused."""

import copy
import json
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ld3m_min.errors import InputError
from ld3m_min.prior import LatentDiffusionPrior
from ld3m_min.prior.schedule import alphas_cumprod, ldm_scheduler
from ld3m_min.residual import NO_RESIDUAL, PUBLIC_RESIDUAL
from ld3m_min.sampler import SamplerConfig, generate, generate_latents
from tests import public_unet
from tests import tiny_pipelines as tiny
from tests.parity._data import load_json, load_tensors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make(tmp_path):
    def make(name):
        return LatentDiffusionPrior.from_diffusers(
            tiny.pipeline(name, tmp_path), classes=tiny.CLASSES
        )

    return make


def codes(prior):
    Z, noise = (torch.randn(2, 3, 8, 8, generator=generator(s)) for s in (1, 2))
    c = (
        prior.class_conditioning(torch.tensor([0, 2])).clone().requires_grad_()
        if prior.conditional
        else None
    )
    return Z.requires_grad_(), c, noise


def config(prior, steps=3, residual=PUBLIC_RESIDUAL):
    return SamplerConfig(
        steps=steps, guidance_scale=3.0 if prior.has_null else 1.0, residual=residual
    )


def made(prior):
    with torch.no_grad():
        return generate(prior, *codes(prior), config(prior))


# -- kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.NAMES)
def test_generates_with_gradients_to_every_code(make, name):
    prior = make(name)
    Z, c, noise = codes(prior)
    images = generate(prior, Z, c, noise, config(prior))
    assert images.shape == (2, 3, 16, 16) and images.min() >= 0 and images.max() <= 1
    weights = torch.randn(images.shape, generator=generator(3))
    leaves = [x for x in (Z, c) if x is not None]
    for leaf, grad in zip(
        leaves, torch.autograd.grad((weights * images).sum(), leaves), strict=True
    ):
        assert grad.shape == leaf.shape and torch.isfinite(grad).all() and grad.abs().max() > 0
    assert prior.conditional == (name != "unconditional")
    assert not any(p.requires_grad for m in prior.modules for p in m.parameters())


@pytest.mark.parametrize("name", tiny.NAMES)
def test_saved_and_loaded_is_the_same_prior(make, name, tmp_path):
    prior = make(name)
    prior.save_pretrained(tmp_path / "prior")
    again = LatentDiffusionPrior.from_pretrained(tmp_path / "prior")
    assert torch.equal(made(prior), made(again))
    assert (again.classes, again.has_null, again.prediction_type) == (
        prior.classes,
        prior.has_null,
        prior.prediction_type,
    )
    assert again.source == str(tmp_path / "prior")


def test_no_file_says_where_a_prior_was_loaded_from(tmp_path):
    """Also of those that the project keeps: a path of a machine is nobody's business."""
    LatentDiffusionPrior.from_pretrained("digits").save_pretrained(tmp_path / "one")
    LatentDiffusionPrior.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    kept = Path(__file__).parents[2] / "book" / "_data" / "priors"
    files = [*(tmp_path / "two").rglob("*.json"), *kept.rglob("*.json")]
    assert len(files) > 4 and not [f for f in files if "_name_or_path" in f.read_text()]


@pytest.mark.parametrize("name", [n for n in tiny.NAMES if n != "class-conditional"])
def test_a_folder_that_holds_a_pipeline_loads_as_one(make, name, tmp_path):
    tiny.pipeline(name, tmp_path).save_pretrained(tmp_path / "pipeline")
    prior = LatentDiffusionPrior.from_pretrained(tmp_path / "pipeline", classes=tiny.CLASSES)
    assert torch.equal(made(prior), made(make(name)))


@pytest.mark.parametrize("name", ["class labels", "transformer"])
def test_the_conditioning_replaces_the_labels(name, tmp_path):
    """Given as labels or as their embedding, the network predicts the same."""
    pipeline = tiny.pipeline(name, tmp_path)
    network = pipeline.unet if name == "class labels" else pipeline.transformer
    z, t, labels = (
        torch.randn(3, 3, 8, 8, generator=generator()),
        torch.tensor([1, 500, 900]),
        torch.tensor([0, 2, 3]),
    )
    with torch.no_grad():
        expected = network.eval()(z, t, class_labels=labels).sample[:, :3]
        prior = LatentDiffusionPrior.from_diffusers(pipeline, classes=tiny.CLASSES)
        c = prior.class_conditioning(labels)
        assert (prior.predict_noise(z, t, c) - expected).abs().max() < 1e-6
        again = network(z, t, class_labels=labels).sample[:, :3]  # the pipeline is not spoilt
        assert (again - expected).abs().max() < 1e-6
        assert torch.equal(prior.null_conditioning(1), c[2:])
    # one token per block, where the blocks differ
    assert c.shape[1] == (2 if name == "transformer" else 1)


def test_a_transformer_with_one_embedding_for_all_blocks_has_one_token(tmp_path):
    pipeline = tiny.pipeline("transformer", tmp_path)
    first, *others = (b.norm1.emb.class_embedder for b in pipeline.transformer.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    prior = LatentDiffusionPrior.from_diffusers(pipeline)
    assert prior.class_conditioning(torch.tensor([1])).shape == (1, 1, 8) and prior.classes == (
        "cat",
        "dog",
        "fox",
    )


@pytest.mark.parametrize("name", ["class labels", "transformer", "unconditional"])
def test_a_pipeline_without_words_does_without_transformers(name, tmp_path, monkeypatch):
    tiny.pipeline(name, tmp_path).save_pretrained(tmp_path / "pipeline")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert LatentDiffusionPrior.from_pretrained(tmp_path / "pipeline").denoiser is not None


def test_text_conditioning_is_the_embedding_of_the_name(tmp_path):
    pipeline = tiny.pipeline("text", tmp_path)
    prior = LatentDiffusionPrior.from_diffusers(pipeline, classes=("cat", "dog"), prompt="{}")
    for i, text in ((0, "cat"), (2, "")):
        tokens = pipeline.tokenizer(
            text, padding="max_length", max_length=24, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            expected = pipeline.text_encoder(tokens)[0]
        found = prior.class_conditioning(torch.tensor([i]))
        assert found.shape == (1, 24, 8) and (found - expected).abs().max() < 1e-6
    with pytest.raises(ValueError, match="classes="):
        LatentDiffusionPrior.from_diffusers(pipeline)


@pytest.mark.parametrize("kind", ["VQModel", "AutoencoderKL"])
def test_autoencoder_alone(kind, tmp_path):
    prior = LatentDiffusionPrior.from_diffusers(tiny.autoencoder(kind))
    prior.save_pretrained(tmp_path / "vae")
    again = LatentDiffusionPrior.from_pretrained(tmp_path / "vae")
    x = torch.rand(2, 3, 16, 16, generator=generator())
    z = prior.encode(x).requires_grad_()
    image = prior.decode(z)
    assert image.shape == x.shape and torch.equal(image, again.decode(again.encode(x)))
    assert (
        (prior.quantize(z) - z).abs().max() > 0
        if kind == "VQModel"
        else torch.equal(prior.quantize(z), z)
    )
    assert torch.autograd.grad(image.sum(), z)[0].abs().max() > 0
    with pytest.raises(ValueError, match="autoencoder alone"):
        generate(prior, z, None, torch.zeros_like(z))
    with pytest.raises(ValueError, match="needs a denoiser"):
        prior.randomised("weights", generator())


def test_a_subset_of_the_classes_is_renumbered(make):
    prior = make("class-conditional")
    subset = prior.for_classes([2, 0])
    assert subset.classes == ("fox", "cat")
    assert torch.equal(
        subset.class_conditioning(torch.tensor([0, 1])),
        prior.class_conditioning(torch.tensor([2, 0])),
    )
    assert torch.equal(subset.null_conditioning(1), prior.null_conditioning(1))
    assert prior.for_classes([1], ["hound"]).classes == ("hound",)
    with pytest.raises(ValueError, match="2 classes, but 1 names"):
        prior.for_classes([0, 1], ["hound"])
    with pytest.raises(ValueError, match="labels reach"):
        prior.for_classes([7])


# -- prediction types and schedules ----------------------------------------------------------------


class Stated(nn.Module):
    """The noise prediction of a network, stated as v or as x0."""

    def __init__(self, network, alpha_bar, kind):
        super().__init__()
        self.network, self.alpha_bar, self.kind, self.config = (
            network,
            alpha_bar,
            kind,
            network.config,
        )

    def forward(self, z, t, encoder_hidden_states):
        e = self.network(z, t, encoder_hidden_states=encoder_hidden_states).sample
        a = self.alpha_bar[t].to(z).view(-1, 1, 1, 1)
        x0 = (z - (1 - a).sqrt() * e) / a.sqrt()
        out = a.sqrt() * e - (1 - a).sqrt() * x0 if self.kind == "v_prediction" else x0
        return type("Output", (), {"sample": out})


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_other_prediction_types_become_the_noise(make, kind):
    noise_prior = make("class-conditional").to(dtype=torch.float64)
    prior = copy.copy(noise_prior)
    prior.prediction_type, prior.denoiser = (
        kind,
        Stated(noise_prior.denoiser, noise_prior.alpha_bar, kind),
    )
    Z, noise = (
        torch.randn(2, 3, 8, 8, generator=generator(s), dtype=torch.float64) for s in (1, 2)
    )
    c = prior.class_conditioning(torch.tensor([0, 1]))
    ours, theirs = (
        generate_latents(p, Z, c, noise, config(p, 5, NO_RESIDUAL)) for p in (prior, noise_prior)
    )
    assert (ours - theirs).abs().max() < 1e-8 * theirs.abs().max()


def test_the_scheduler_says_the_prediction_type(make):
    prior = make("class-conditional")
    scheduler = ldm_scheduler(prediction_type="v_prediction")
    other = LatentDiffusionPrior(
        prior.autoencoder, prior.denoiser, scheduler, prior.class_embedding
    )
    assert other.prediction_type == "v_prediction"
    z, t, c = (
        torch.randn(1, 3, 8, 8, generator=generator()),
        torch.tensor([300]),
        other.null_conditioning(1),
    )
    a = float(prior.alpha_bar[300])
    expected = math.sqrt(a) * prior.predict_noise(z, t, c) + math.sqrt(1 - a) * z
    assert (other.predict_noise(z, t, c) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules_equal_diffusers(schedule):
    scheduler = ldm_scheduler(beta_schedule=schedule)
    assert (alphas_cumprod(scheduler) - scheduler.alphas_cumprod.double()).abs().max() < 1e-5


# -- what cannot fit -------------------------------------------------------------------------------


def parts(**changes):
    found = {
        "autoencoder": tiny.autoencoder(),
        "denoiser": tiny.unet(),
        "scheduler": ldm_scheduler(),
        "class_embedding": nn.Embedding.from_pretrained(torch.zeros(4, 8)),
    }
    return found | changes


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"scheduler": lambda: ldm_scheduler(prediction_type="flow_prediction")},
            "prediction type 'flow_prediction'",
        ),
        ({"scheduler": lambda: None}, "needs the scheduler"),
        ({"scheduler": lambda: ldm_scheduler(rescale_betas_zero_snr=True)}, "without any signal"),
        (
            {"denoiser": lambda: tiny.unet(in_channels=4)},
            "takes 4 channels, but the autoencoder's latents have 3",
        ),
        ({"denoiser": lambda: tiny.unet(out_channels=5)}, "gives 5 channels"),
        ({"denoiser": lambda: tiny.plain_unet()}, "takes no conditioning, but one is given"),
        ({"denoiser": lambda: nn.Linear(1, 1)}, "denoiser Linear is not supported"),
        ({"denoiser": lambda: tiny.unet(num_class_embeds=3)}, "beside it, class labels"),
        ({"class_embedding": lambda: None}, "takes a conditioning, but none is given"),
        (
            {"class_embedding": lambda: nn.Embedding.from_pretrained(torch.zeros(4, 9))},
            "does not fit a UNet2DConditionModel",
        ),
        ({"autoencoder": lambda: tiny.autoencoder(scaling_factor=0.0)}, "scaling_factor is 0.0"),
        ({"autoencoder": lambda: tiny.autoencoder(scaling_factor=-1.0)}, "scaling_factor is -1.0"),
        ({"autoencoder": lambda: tiny.autoencoder(scaling_factor=None)}, "scaling_factor is None"),
        (
            {
                "autoencoder": lambda: tiny.autoencoder(
                    "AutoencoderKL", shift_factor=0.1, latents_mean=[0.0] * 3
                )
            },
            "leave one in",
        ),
        (
            {"autoencoder": lambda: tiny.autoencoder("AutoencoderKL", latents_std=[1.0, 0.0, 1.0])},
            "deviations above 0",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_once(changes, message):
    values = parts(**{k: build() for k, build in changes.items()})
    with pytest.raises(ValueError, match=message):
        LatentDiffusionPrior(**values)


def test_guidance_needs_a_null_class(make, tmp_path):
    pipeline = tiny.pipeline("class labels", tmp_path)
    without = LatentDiffusionPrior.from_diffusers(pipeline, classes=("cat", "dog", "fox", "owl"))
    assert not without.has_null and without.class_conditioning(torch.tensor([3])).shape == (
        1,
        1,
        32,
    )
    for prior, message in ((without, "no null class"), (make("unconditional"), "unconditional")):
        with pytest.raises(ValueError, match=message):
            generate(prior, *codes(prior), SamplerConfig(steps=2, guidance_scale=3.0))
        assert torch.isfinite(
            generate(prior, *codes(prior), SamplerConfig(steps=2, guidance_scale=1.0))
        ).all()
    with pytest.raises(ValueError, match="unconditional"):
        make("unconditional").class_conditioning(torch.tensor([0]))


def test_more_steps_than_the_prior_was_trained_with(make):
    prior = make("unconditional")
    with pytest.raises(ValueError, match="trained with 1000"):
        generate(prior, *codes(prior), config(prior, steps=1001))


def test_pipelines_without_counterpart(tmp_path):
    pipeline = tiny.pipeline("text", tmp_path)
    with pytest.raises(ValueError, match="more than one text embedding"):
        LatentDiffusionPrior.from_diffusers(
            pipeline.components | {"text_encoder_2": pipeline.text_encoder}
        )
    with pytest.raises(ValueError, match="no autoencoder"):
        LatentDiffusionPrior.from_diffusers({"unet": tiny.unet()})
    with pytest.raises(TypeError, match="neither a diffusers pipeline"):
        LatentDiffusionPrior.from_diffusers(nn.Linear(1, 1))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "class_embedding" / "model.safetensors").unlink(), "class_embedding"),
        (lambda f: (f / "model_index.json").write_text("{"), "not valid JSON"),
        (
            lambda f: (f / "model_index.json").write_text(
                '{"_class_name": "LatentDiffusionPrior", "vae": "Flux"}'
            ),
            "expected one of",
        ),
    ],
)
def test_a_damaged_folder_is_named(make, tmp_path, damage, message):
    make("class-conditional").save_pretrained(tmp_path / "prior")
    damage(tmp_path / "prior")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


# -- priors that know nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.NAMES)
def test_random_priors(make, name):
    trained = make(name)
    state = torch.random.get_rng_state()
    zero, random, again = (
        trained.randomised(k, generator(s))
        for k, s in (("zero-output", 5), ("weights", 5), ("weights", 5))
    )
    assert torch.equal(state, torch.random.get_rng_state())
    Z, c, noise = codes(trained)
    # zero output: no diffusion at all, whatever the noise and the steps
    for steps, e in ((2, noise), (7, -noise)):
        z = generate_latents(zero, Z, c, e, config(zero, steps))
        scale = math.sqrt(float(zero.alpha_bar[0]))
        assert (z - scale * zero.quantize(Z)).abs().max() < 1e-5
    assert torch.equal(made(random), made(again)) and not torch.equal(made(random), made(trained))
    x = torch.rand(1, 3, 16, 16, generator=generator())
    assert torch.equal(random.encode(x), trained.encode(x))
    assert not torch.equal(
        trained.randomised("weights", generator(), autoencoder=True).encode(x), trained.encode(x)
    )
    random.to(dtype=torch.float64)
    # the new prior shares nothing
    assert next(trained.autoencoder.parameters()).dtype == torch.float32
    with pytest.raises(ValueError, match="choose zero-output, weights"):
        trained.randomised("noise", generator())


# -- checkpoints of the public code ----------------------------------------------------------------


def tiny_unconditional():
    """State dict and config of a tiny unconditional model in the public layout.

    The autoencoder is the parity case's.
    """
    found = load_json("compvis_tiny")["model"]["params"]
    state = {
        k: v for k, v in load_tensors("compvis_tiny").items() if k.startswith("first_stage_model.")
    }
    state |= {
        f"model.diffusion_model.{k}": v for k, v in public_unet.random_state(generator(4)).items()
    }
    params = {
        k: found[k] for k in ("linear_start", "linear_end", "timesteps", "first_stage_config")
    }
    params |= {
        "unet_config": {"params": public_unet.CONFIG},
        "cond_stage_config": "__is_unconditional__",
    }
    return state, {
        "model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}
    }


def test_unconditional_layout_computes_what_the_public_network_does():
    state, config_ = tiny_unconditional()
    prior = LatentDiffusionPrior.from_compvis(state, config_)
    assert type(prior.denoiser).__name__ == "UNet2DModel" and not prior.conditional
    x, t = torch.randn(2, 3, 8, 8, generator=generator()), torch.tensor([1, 901])
    weights = {k.removeprefix("model.diffusion_model."): v for k, v in state.items()}
    expected = public_unet.forward(weights, x, t)
    assert (prior.predict_noise(x, t, None) - expected).abs().max() < 1e-5 * max(
        1, expected.abs().max()
    )
    Z, c, noise = codes(prior)
    images = generate(prior, Z, c, noise, config(prior))
    assert torch.autograd.grad(images.sum(), Z)[0].abs().max() > 0


def test_averaged_copies_are_used_only_on_request():
    state, config_ = tiny_unconditional()
    plain = LatentDiffusionPrior.from_compvis(state, config_)
    with pytest.raises(ValueError, match="no averaged copies"):
        LatentDiffusionPrior.from_compvis(state, config_, ema=True)
    copies = {
        "model_ema." + k.removeprefix("model.").replace(".", ""): 2 * v
        for k, v in state.items()
        if k.startswith("model.")
    }
    state |= copies | {
        "model_ema.decay": torch.tensor(0.99),
        "model_ema.num_updates": torch.tensor(3),
    }
    same, averaged = (
        LatentDiffusionPrior.from_compvis(state, config_, ema=e) for e in (False, True)
    )
    for a, b, c in zip(*(p.denoiser.parameters() for p in (plain, same, averaged)), strict=True):
        assert torch.equal(a, b) and torch.equal(2 * a, c)


def compvis_tiny():
    return load_tensors("compvis_tiny"), load_json("compvis_tiny")


def outputs(prior):
    Z, noise = (torch.randn(1, 3, 8, 8, generator=generator(s)) for s in (1, 2))
    with torch.no_grad():
        return generate(
            prior, Z, prior.class_conditioning(torch.tensor([3])), noise, SamplerConfig(steps=2)
        )


def test_a_loaded_checkpoint_is_saved_again_in_diffusers_layout(tmp_path):
    state, values = compvis_tiny()
    random_state = torch.random.get_rng_state()
    prior = LatentDiffusionPrior.from_compvis(state, values)
    assert torch.equal(random_state, torch.random.get_rng_state())
    prior.save_pretrained(tmp_path / "prior")
    assert torch.equal(
        outputs(prior), outputs(LatentDiffusionPrior.from_pretrained(tmp_path / "prior"))
    )
    assert prior.scale == 1.0 and prior.autoencoder.config.scaling_factor == 1.0


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_checkpoint_and_config_as_files(tmp_path, suffix):
    import yaml
    from safetensors.torch import save_file

    state, values = compvis_tiny()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    if suffix == ".safetensors":
        save_file(state, tmp_path / "model.safetensors")
    else:
        torch.save(
            {"state_dict": state, "epoch": 1} if suffix == ".ckpt" else state,
            tmp_path / f"model{suffix}",
        )
    prior = LatentDiffusionPrior.from_compvis(tmp_path / f"model{suffix}", tmp_path / "config.yaml")
    assert torch.equal(outputs(prior), outputs(LatentDiffusionPrior.from_compvis(state, values)))


class Payload:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path, plain):
    state, values = compvis_tiny()
    content = {"state_dict": state, "callbacks": Payload(tmp_path / "owned")}
    if plain:
        (tmp_path / "model.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"more than tensors.*isolated environment.*safetensors"):
        LatentDiffusionPrior.from_compvis(tmp_path / "model.ckpt", values)
    assert not (tmp_path / "owned").exists()
    if plain:  # an ordinary load would have run it
        pickle.loads((tmp_path / "model.ckpt").read_bytes())
        assert (tmp_path / "owned").exists()


def changed(values, **changes):
    values = copy.deepcopy(values)
    for path, value in changes.items():
        *where, last = path.split("__")
        place = values["model"]["params"]
        for step in where:
            place = place[step]
        place[last] = value
    return values


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"beta_schedule": "cosine"}, "beta_schedule = 'cosine' is not supported"),
        ({"parameterization": "flow"}, "parameterization = 'flow'"),
        ({"conditioning_key": "concat"}, "conditioning_key = 'concat'"),
        ({"linear_start": 0.0001}, "noise schedule is not the config's"),
        ({"scale_by_std": True}, "lacks scale_factor"),
        ({"scale_factor": 0.0}, "scaling_factor is 0.0"),
        ({"unet_config__params__in_channels": 4}, "U-Net have other shapes"),
        ({"unet_config__params__use_scale_shift_norm": True}, "use_scale_shift_norm = True"),
        ({"unet_config__params__num_res_blocks": 2}, "no counterpart|lacks weights"),
        ({"first_stage_config__target": "x.IdentityFirstStage"}, "IdentityFirstStage"),
        (
            {"cond_stage_config__target": "ldm.modules.encoders.modules.BERTEmbedder"},
            "from_single_file",
        ),
        ({"cond_stage_config__params__n_classes": 1001}, "n_classes = 1001 and embed_dim = 16"),
        (
            {"cond_stage_config": "__is_unconditional__"},
            "no counterpart under this config: embedding.weight",
        ),
    ],
)
def test_a_config_that_does_not_fit_the_checkpoint_is_refused(changes, message):
    state, values = compvis_tiny()
    with pytest.raises(ValueError, match=message):
        LatentDiffusionPrior.from_compvis(state, changed(values, **changes))


def without(values, path):
    values = copy.deepcopy(values)
    *where, last = path.split("__")
    place = values["model"]["params"]
    for step in where:
        place = place[step]
    del place[last]
    return values


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"unet_config__params__{k}"
            for k in (
                "channel_mult",
                "model_channels",
                "num_res_blocks",
                "attention_resolutions",
                "context_dim",
                "in_channels",
                "out_channels",
            )
        ),
        *(
            f"first_stage_config__params__ddconfig__{k}"
            for k in (
                "ch",
                "ch_mult",
                "num_res_blocks",
                "resolution",
                "attn_resolutions",
                "z_channels",
                "in_channels",
                "out_ch",
            )
        ),
        "first_stage_config__params__embed_dim",
        "first_stage_config__params__n_embed",
        "cond_stage_config__params__embed_dim",
    ],
)
def test_a_config_that_lacks_or_spoils_a_field_names_it_and_its_file(tmp_path, path):
    import yaml

    state, values = compvis_tiny()
    file, name = tmp_path / "tiny.yaml", path.rsplit("__", 1)[-1]
    file.write_text(yaml.safe_dump(without(values, path)))
    with pytest.raises(InputError, match=rf"tiny\.yaml: .*lacks '{name}'"):
        LatentDiffusionPrior.from_compvis(state, file)
    for spoilt in (None, "four", [], {"a": 1}, -1):
        file.write_text(yaml.safe_dump(changed(values, **{path: spoilt})))
        if spoilt == [] and name in ("attention_resolutions", "attn_resolutions"):
            continue  # no level attends
        with pytest.raises(InputError, match=rf"tiny\.yaml: .*({name}|no counterpart|lacks)"):
            LatentDiffusionPrior.from_compvis(state, file)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"timesteps": "four"}, "timesteps must be a whole number, not 'four'"),
        ({"linear_start": None}, "linear_start must be a number, not None"),
        ({"scale_factor": "wide"}, "scale_factor must be a number"),
        ({"unet_config__params": 3}, "unet_config.params must be settings by their names"),
        ({"unet_config__params__num_head_channels": 0}, "num_head_channels must be at least 1"),
        ({"unet_config__params__model_channels": 30}, "describes no U-Net that can be built"),
        ({"cond_stage_config__params__n_classes": "ten"}, "n_classes must be a whole number"),
    ],
)
def test_a_config_of_spoilt_values_is_a_sentence(changes, message):
    state, values = compvis_tiny()
    with pytest.raises(InputError, match=message):
        LatentDiffusionPrior.from_compvis(state, changed(values, **changes))


def test_a_schedule_of_spoilt_betas_is_a_sentence(make, tmp_path):
    for beta in ("a", None, -1.0):
        scheduler = ldm_scheduler()
        scheduler.register_to_config(beta_start=beta)
        with pytest.raises(InputError, match="beta_start"):
            alphas_cumprod(scheduler)
    make("class-conditional").save_pretrained(tmp_path / "prior")
    file = tmp_path / "prior" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_start": "a"}))
    with pytest.raises(InputError, match=r"scheduler holds no .* that can be loaded"):
        LatentDiffusionPrior.from_pretrained(tmp_path / "prior")


def of_rows(rows):
    """The tiny checkpoint with so many classes, and its config."""
    state, values = compvis_tiny()
    key = "cond_stage_model.embedding.weight"
    state[key] = state[key][torch.arange(rows) % 11].clone()
    return state, changed(values, cond_stage_config__params__n_classes=rows)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows, said, null",
    [
        (10, {"null": False}, False),
        (11, {"null": True}, True),
        (10, {"classes": map(str, range(10))}, False),
        (11, {"classes": map(str, range(10))}, True),
        (1000, {}, False),
        (1001, {}, True),
    ],
)
def test_a_checkpoint_has_a_null_class_only_where_there_is_one(rows, said, null):
    prior = LatentDiffusionPrior.from_compvis(*of_rows(rows), **said)
    assert (prior.has_null, prior.class_count) == (null, rows - null)


def test_an_unknown_null_class_of_a_checkpoint_is_said():
    with pytest.warns(UserWarning, match="last of the 10 rows .* null=False"):
        assert LatentDiffusionPrior.from_compvis(*of_rows(10)).has_null


def test_a_released_checkpoint_is_found_below_home(tmp_path, monkeypatch):
    import yaml
    from safetensors.torch import save_file

    state, values = compvis_tiny()
    save_file(state, tmp_path / "x.safetensors")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [str(i) for i in range(10)]
    found = LatentDiffusionPrior.from_pretrained("~/x.safetensors", classes=names)
    other = LatentDiffusionPrior.from_compvis("~/x.safetensors", "~/x.yaml", classes=names)
    assert found.digest == other.digest


def test_files_that_are_not_what_they_should_be(tmp_path):
    state, values = compvis_tiny()
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "day.yaml").write_text("model: 2024-13-01")
    (tmp_path / "deep.yaml").write_text("model: " + "[" * 5000)
    torch.save({"state_dict": {"a": "text"}}, tmp_path / "text.pt")
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    (tmp_path / "page.safetensors").write_text("<html>404</html>")
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    for checkpoint, config_, message in (
        (tmp_path / "none.ckpt", values, "no checkpoint"),
        (state, tmp_path / "none.yaml", "no config"),
        (state, tmp_path / "list.yaml", "not a mapping"),
        (state, tmp_path / "broken.yaml", "not yaml"),
        (state, tmp_path / "day.yaml", "not yaml: month must be"),
        (state, tmp_path / "deep.yaml", "not yaml"),
        (state, {"model": {"params": 3}}, "lacks 'first_stage_config'"),
        (state, {"model": {}}, "lacks 'params'"),
        (tmp_path / "text.pt", values, "more than tensors: a"),
        (tmp_path / "page.ckpt", values, "page.ckpt is not a PyTorch checkpoint.*error page"),
        (tmp_path / "page.safetensors", values, "not a safetensors file"),
        (tmp_path / "half.pt", values, "half.pt is not"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            LatentDiffusionPrior.from_compvis(checkpoint, config_)


def test_the_scale_is_read_where_it_was_measured():
    state, values = compvis_tiny()
    prior = LatentDiffusionPrior.from_compvis(
        state | {"scale_factor": torch.tensor(0.25)}, changed(values, scale_by_std=True)
    )
    assert prior.scale == 0.25
    x = torch.rand(1, 3, 32, 32, generator=generator())
    plain = LatentDiffusionPrior.from_compvis(state, values)
    assert (prior.encode(x) - 0.25 * plain.encode(x)).abs().max() < 1e-6
    assert (prior.decode(prior.encode(x)) - plain.decode(plain.encode(x))).abs().max() < 1e-5

"""Pipelines of diffusers with tiny random networks.

What a hub would hold, in milliseconds and without one.
"""

import json

import torch

CLASSES = ("cat", "dog", "fox")
NAMES = ("class-conditional", "class labels", "unconditional", "transformer", "text")


def _seeded(build):
    """Networks of diffusers and transformers draw from the global generator.

    Lend it a seed, and put it back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.set_state(torch.Generator().manual_seed(7).get_state())
        return build()


def _vae(kind, **changes):
    import diffusers

    options = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    codebook = {"num_vq_embeddings": 16, "vq_embed_dim": 3} if kind == "VQModel" else {}
    vae = getattr(diffusers, kind)(**options | codebook | changes)
    if kind == "VQModel":  # as drawn, all codes are nearly one
        torch.nn.init.normal_(vae.quantize.embedding.weight)
    return vae


def _unet(width=8, **changes):
    from diffusers import UNet2DConditionModel

    options = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "in_channels": 3,
        "out_channels": 3,
        "cross_attention_dim": width,
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**options | changes)


def _plain_unet(**changes):
    from diffusers import UNet2DModel

    options = {
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    }
    return UNet2DModel(**options | changes)


def _transformer():
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=3,
        norm_num_groups=1,
    )
    return net


def _text(folder):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(i) for i in range(97, 123)]
    vocab = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=24
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            eos_token_id=len(vocab) - 1,
            bos_token_id=len(vocab) - 2,
            pad_token_id=len(vocab) - 1,
        )
    )
    return encoder, tokenizer


def pipeline(name, folder):
    """A pipeline of that kind, or its components where diffusers has no class for them."""
    from diffusers import DDIMScheduler, DiTPipeline, LDMPipeline, StableDiffusionPipeline

    from ld3m_min.prior.schedule import ldm_scheduler

    def build():
        if name == "class-conditional":
            return {
                "vqvae": _vae("VQModel", scaling_factor=1.0),
                "unet": _unet(),
                "scheduler": ldm_scheduler(),
                "class_embedding": torch.nn.Embedding(4, 8),
            }
        if name == "class labels":
            return LDMPipeline(
                _vae("VQModel", scaling_factor=1.0),
                _plain_unet(num_class_embeds=4),
                ldm_scheduler(),
            )
        if name == "unconditional":
            return LDMPipeline(_vae("VQModel", scaling_factor=1.0), _plain_unet(), ldm_scheduler())
        if name == "transformer":
            labels = {0: "cat, tom", 1: "dog", 2: "fox"}
            return DiTPipeline(
                _transformer(), _vae("AutoencoderKL", scaling_factor=0.5), DDIMScheduler(), labels
            )
        encoder, tokenizer = _text(folder)
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            steps_offset=1,
        )
        return StableDiffusionPipeline(
            _vae("AutoencoderKL", scaling_factor=0.5),
            encoder,
            tokenizer,
            _unet(),
            scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return _seeded(build)


def autoencoder(kind="VQModel", **changes):
    return _seeded(lambda: _vae(kind, **{"scaling_factor": 1.0} | changes))


def unet(**changes):
    return _seeded(lambda: _unet(**changes))


def plain_unet(**changes):
    return _seeded(lambda: _plain_unet(**changes))

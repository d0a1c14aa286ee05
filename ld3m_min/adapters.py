"""Other people's pipelines as priors: sections 2.2 and 4.1.

What differs between a class-conditional U-Net, a diffusion transformer and a text-to-image model is only where the
conditioning comes from, and under which name the network takes it. Both are values here: a table of conditionings, one
row per class, and a keyword.
"""
from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn

from .errors import InputError, InputTypeError

DENOISERS = ("UNet2DConditionModel", "UNet2DModel", "DiTTransformer2DModel")
AUTOENCODERS = ("AutoencoderKL", "VQModel")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
OUTPUT_LAYER = {"UNet2DConditionModel": "conv_out", "UNet2DModel": "conv_out", "DiTTransformer2DModel": "proj_out_2"}


def parts_of(pipeline, *, classes=(), prompt="a photo of a {}"):
    """Take a diffusers pipeline apart into the arguments of `LatentDiffusionPrior`.

    Args:
        pipeline: a `DiffusionPipeline` of one of these kinds, a mapping of components under the same names (`vae` or
            `vqvae`, `unet` or `transformer`, `scheduler`, and for a U-Net with cross-attention `class_embedding`), or an
            autoencoder alone.
        classes: class names. A text-conditioned pipeline needs them: c is the text embedding of `prompt` with the name
            in it, and the null class that of the empty text. A U-Net with class labels has a null class only if it has
            one embedding more than there are names.

    Returns:
        dict of autoencoder, denoiser, scheduler, class_embedding, classes, null.

    Raises:
        TypeError, ValueError: what the pipeline lacks, or what of it has no counterpart.
    """
    if type(pipeline).__name__ in AUTOENCODERS:
        pipeline = {"vae": pipeline}
    found = pipeline if isinstance(pipeline, Mapping) else getattr(pipeline, "components", None)
    if found is None:
        raise InputTypeError(f"{type(pipeline).__name__} is neither a diffusers pipeline, nor its components, nor an autoencoder")
    found = {k: v for k, v in found.items() if v is not None}
    if "text_encoder_2" in found or "prior" in found:
        raise InputError(f"{type(pipeline).__name__} conditions on more than one text embedding; "
                         "Stable Diffusion 1 and 2, DiT, latent diffusion and autoencoders are supported")
    autoencoder = next((found[k] for k in ("vae", "vqvae", "movq") if k in found), None)
    denoiser = next((found[k] for k in ("unet", "transformer") if k in found), None)
    if autoencoder is None:
        raise InputError(f"{type(pipeline).__name__} has no autoencoder (vae, vqvae); LD3M works in its latents")
    parts = {"autoencoder": autoencoder, "denoiser": denoiser, "scheduler": found.get("scheduler"), "classes": tuple(classes)}
    if denoiser is None:
        return parts | {"scheduler": None, "class_embedding": None, "null": False}
    encoder = next((found[k] for k in ("text_encoder", "bert") if k in found), None)
    labels = label_table(denoiser)
    if encoder is not None and "tokenizer" in found:
        if not classes:
            raise InputError("this pipeline is conditioned on text: give the class names, from_diffusers(pipeline, classes=...)")
        if "{}" not in prompt:
            raise InputError(f"prompt {prompt!r} has no place for the class's name; write it with {{}}, as 'a photo of a {{}}'")
        texts = [*(prompt.replace("{}", name) for name in classes), ""]
        table, null = text_table(encoder, found["tokenizer"], texts), True
    elif "class_embedding" in found:
        table, null = found["class_embedding"].weight, True
    elif labels is not None:
        table = labels
        known = denoiser.config.get("num_embeds_ada_norm") or len(classes)
        null = len(table) == known + 1  # a transformer's table says so itself, a U-Net's only by the number of names
        if not parts["classes"] and getattr(pipeline, "labels", None):
            named = {}
            for name, row in pipeline.labels.items():
                named.setdefault(row, name)
            if sorted(named) == list(range(len(table) - null)):
                parts["classes"] = tuple(named[row] for row in sorted(named))
    else:
        table, null = None, False
    embedding = None if table is None else nn.Embedding.from_pretrained(table.detach().clone())
    return parts | {"class_embedding": embedding, "null": null}


@torch.no_grad()
def text_table(encoder, tokenizer, texts):
    """Text embeddings (texts, L D): what a text-to-image U-Net attends to, padded to the tokenizer's length."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or tokenizer.model_max_length
    most = min(tokenizer.model_max_length, positions)  # some tokenizers allow more than their encoder has positions for
    tokens = tokenizer(texts, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
    for text, ids in zip(texts, tokenizer(texts).input_ids, strict=True):
        if len(ids) > most:
            warnings.warn(f"the text encoder reads {most} tokens, and {text!r} has {len(ids)}: its end is cut off; use a shorter "
                          "prompt or class name", stacklevel=5)
    use_mask = getattr(encoder.config, "use_attention_mask", False)
    device = next(encoder.parameters()).device
    options = {"attention_mask": tokens.attention_mask.to(device)} if use_mask else {}
    return encoder.eval()(tokens.input_ids.to(device), **options)[0].flatten(1)


def latent_statistics(config, channels):
    """(centre, spread) of an autoencoder's latents, each (1, c, 1, 1): shift_factor, or latents_mean and latents_std.

    Pipelines take (latent - centre) * scaling_factor / spread. None, None where there is nothing but the factor.

    Raises:
        InputError: both are given, or values that cannot be used.
    """
    shift, mean, std = (config.get(k) for k in ("shift_factor", "latents_mean", "latents_std"))
    if not shift and mean is None and std is None:
        return None, None
    if shift and not (mean is None and std is None):
        raise InputError("the autoencoder has a shift_factor and latents_mean or latents_std; which one its denoiser was trained "
                         "with is not to be known: leave one in its configuration")
    centre = torch.full((channels,), float(shift)) if shift else torch.zeros(channels) if mean is None else torch.tensor(mean)
    spread = torch.ones(channels) if std is None else torch.tensor(std)
    if centre.shape != (channels,) or spread.shape != (channels,) or not bool(centre.isfinite().all() and (spread > 0).all()):
        raise InputError(f"the autoencoder's shift_factor, latents_mean and latents_std must be finite numbers for {channels} "
                         f"channels, deviations above 0; they are {shift}, {mean}, {std}")
    return centre.float().view(1, -1, 1, 1), spread.float().view(1, -1, 1, 1)


def check_length(steps):
    """InputError where a noise schedule has no possible number of training steps, before any memory is taken for it."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 100_000:
        raise InputError(f"the schedule has num_train_timesteps = {steps!r}; it must be a whole number from 1 to 100,000")


def label_table(denoiser):
    """The class embeddings inside a network, (K, L D), or None: L = 1, or one per block where its blocks differ."""
    blocks = label_embedders(denoiser)
    if not blocks:
        return None
    tables = [b.weight if isinstance(b, nn.Embedding) else b.embedding_table.weight for b in blocks]
    same = all(torch.equal(t, tables[0]) for t in tables)
    return tables[0] if same else torch.stack(tables, 1).flatten(1)


def label_embedders(denoiser):
    """The modules of a network that turn labels into embeddings, in the order of its blocks."""
    if type(denoiser).__name__ == "DiTTransformer2DModel":
        return [block.norm1.emb.class_embedder for block in denoiser.transformer_blocks]
    embedder = getattr(denoiser, "class_embedding", None)
    if embedder is not None and not isinstance(embedder, nn.Embedding):
        raise InputError(f"class embedding of type {denoiser.config.class_embed_type!r} is not supported, only labels are")
    return [embedder] if embedder is not None else []


def check_fit(denoiser, scheduler, channels, class_embedding):
    """ValueError where a denoiser, its scheduler, the autoencoder's latents and the class embedding do not fit."""
    kind = type(denoiser).__name__
    if kind not in DENOISERS:
        raise InputError(f"denoiser {kind} is not supported; {', '.join(DENOISERS)} are")
    config = denoiser.config
    if scheduler is None:
        raise InputError("a denoiser needs the scheduler that it was trained with")
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(f"prediction type {prediction!r} is not supported; {', '.join(PREDICTIONS)} are")
    if config.in_channels != channels:
        raise InputError(f"the denoiser takes {config.in_channels} channels, but the autoencoder's latents have {channels}; "
                         "they do not belong together")
    if config.out_channels not in (None, channels, 2 * channels):  # twice: mean and variance, of which the mean is used
        raise InputError(f"the denoiser gives {config.out_channels} channels; {channels} or {2 * channels} are expected")
    odd = next((k for k in ("addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim") if config.get(k)), None)
    blocks = label_embedders(denoiser)
    if odd or (blocks and kind == "UNet2DConditionModel"):
        raise InputError(f"a U-Net with cross-attention and, beside it, {odd or 'class labels'} is not supported")
    takes = kind == "UNet2DConditionModel" or bool(blocks)
    if takes != (class_embedding is not None):
        raise InputError(f"the {kind} takes {'a' if takes else 'no'} conditioning, but {'none' if takes else 'one'} is given "
                         "(class_embedding); they do not belong together")
    width = _width(denoiser)
    if takes and class_embedding.embedding_dim % width:
        raise InputError(f"class embedding {tuple(class_embedding.weight.shape)} does not fit a {kind} of width {width}")


def _width(denoiser):
    blocks = label_embedders(denoiser)
    if not blocks:
        return denoiser.config.get("cross_attention_dim")
    return (blocks[0] if isinstance(blocks[0], nn.Embedding) else blocks[0].embedding_table).embedding_dim


def conditioning(denoiser):
    """(keyword, D): how the network takes c (B, L, D); None, None if it takes none.

    Networks with class labels are made to take their embedding as well: token i for block i, or the only one for all.
    Labels still work.
    """
    if type(denoiser).__name__ == "UNet2DConditionModel":
        return "encoder_hidden_states", _width(denoiser)
    for i, embedder in enumerate(label_embedders(denoiser)):
        embedder.forward = partial(_token, embedder.forward, i)
    return ("class_labels", _width(denoiser)) if label_embedders(denoiser) else (None, None)


def _token(embed_labels, index, c):
    return c[:, index if c.shape[1] > 1 else 0] if c.is_floating_point() else embed_labels(c)


def redrawn(module, generator):
    """The same architecture with new weights, drawn from `generator`; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):  # diffusers' constructors know no generator
        seed = int(torch.randint(2**62, (), generator=generator))
        torch.random.default_generator.set_state(torch.Generator().manual_seed(seed).get_state())
        new = type(module).from_config(module.config)
    like = next(module.parameters())
    return torch.nn.Module.to(new, like.device, like.dtype)  # diffusers' own `to` warns of a cast


class SingleTokenAttention(AttnProcessor2_0):
    """Cross-attention to a single token, without the attention: a softmax over one score is 1, whatever the query.

    Exact, in value and gradient: the output is the token's value, the same at every position, and the queries receive no
    gradient. A class embedding is one token, so this is half of the attention of the public prior. Where the queries'
    weights are being trained, or where there are more tokens, it is the ordinary attention.
    """

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, *args, **kwargs):
        one = encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1
        plain = not (attn.to_q.weight.requires_grad or attn.residual_connection or attn.norm_cross or attn.spatial_norm)
        if not (one and plain and attention_mask is None and hidden_states.dim() == 3):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        out = attn.to_out[0](attn.to_v(encoder_hidden_states)) / attn.rescale_output_factor
        return out.expand(-1, hidden_states.shape[1], -1)


def skip_single_token_attention(denoiser):
    """Give every cross-attention of a U-Net the processor above; self-attention keeps its own."""
    if type(denoiser).__name__ == "UNet2DConditionModel":
        for name, module in denoiser.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                module.set_processor(SingleTokenAttention())

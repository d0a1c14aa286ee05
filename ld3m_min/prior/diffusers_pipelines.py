"""Other people's pipelines as priors: sections 2.2 and 4.1.

What differs between a class-conditional U-Net, a diffusion transformer and a text-to-image model is
only where the conditioning comes from, and under which name the network takes it. Both are values
here: a table of conditionings, one row for each class, and a keyword (`conditioning`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError, InputTypeError
from ld3m_min.prior.class_map import PROMPT, ClassMap
from ld3m_min.prior.conditioning import label_table
from ld3m_min.prior.kinds import AUTOENCODERS
from ld3m_min.prior.parts import GivenParts


@dataclass(frozen=True)
class ClassTable:
    """The conditionings of a pipeline's classes.

    Attributes:
        rows: one conditioning for each class and, with `null`, one for no class.
        null: whether the last row is the null class.
        names: of the classes, where they are known.
        prompts: that the rows embed, of a pipeline that is conditioned on text.
    """

    rows: Float[Tensor, "K LD"]
    null: bool
    names: tuple[object, ...]
    prompts: tuple[str, ...] = ()


def parts_of(
    pipeline: object,
    *,
    classes: Iterable[object] = (),
    prompt: str = PROMPT,
    prompts: Mapping[str, str] | None = None,
) -> GivenParts:
    """Take a diffusers pipeline apart into the arguments of `LatentDiffusionPrior`.

    Args:
        pipeline: a `DiffusionPipeline` (latent diffusion, DiT, Stable Diffusion 1 and 2); or a
            mapping of components under the same names (`vae` or `vqvae`, `unet` or `transformer`,
            `scheduler`, and for a U-Net with cross-attention `class_embedding`); or an autoencoder
            alone.
        classes: class names. A text-conditioned pipeline needs them. A U-Net with class labels has
            a null class only if it has one embedding more than there are names.
        prompt: of a text-conditioned pipeline, with `{}` where the name belongs. c is the embedding
            of this text, and the null class is that of the empty text.
        prompts: whole texts of some classes, in the place of the prompt around their names.

    Raises:
        InputTypeError: the pipeline is something else.
        InputError: what the pipeline lacks, or what of it has no counterpart.
    """
    found = _components(pipeline)
    autoencoder = next((found[k] for k in ("vae", "vqvae", "movq") if k in found), None)
    denoiser = next((found[k] for k in ("unet", "transformer") if k in found), None)
    if autoencoder is None:
        raise InputError(
            f"{type(pipeline).__name__} has no autoencoder (vae, vqvae); LD3M works in its latents"
        )
    names = tuple(classes)
    if denoiser is None:
        return GivenParts(autoencoder, classes=names, null=False)
    labels = getattr(pipeline, "labels", None)
    table = _class_table(found, denoiser, names, ClassMap(prompts or {}, prompt), labels)
    return GivenParts(
        autoencoder,
        denoiser,
        found.get("scheduler"),
        None if table is None else nn.Embedding.from_pretrained(table.rows.detach().clone()),
        names if table is None else table.names,
        table is not None and table.null,
        prompts=() if table is None else table.prompts,
    )


def _components(pipeline: object) -> dict[str, Any]:
    """The parts that a pipeline has, name -> part.

    Raises:
        InputTypeError: it is neither a pipeline, nor a mapping, nor an autoencoder.
        InputError: it conditions on more than one text.
    """
    kind = type(pipeline).__name__
    if kind in AUTOENCODERS:
        return {"vae": pipeline}
    found = pipeline if isinstance(pipeline, Mapping) else getattr(pipeline, "components", None)
    if found is None:
        raise InputTypeError(
            f"{kind} is neither a diffusers pipeline, nor its components, nor an autoencoder"
        )
    found = {k: v for k, v in found.items() if v is not None}
    if "text_encoder_2" in found or "prior" in found:
        raise InputError(
            f"{kind} conditions on more than one text embedding; "
            "Stable Diffusion 1 and 2, DiT, latent diffusion and autoencoders are supported"
        )
    return found


def _class_table(
    found: Mapping[str, Any],
    denoiser: object,
    names: tuple[object, ...],
    said: ClassMap,
    labels: Mapping[str, int] | None,
) -> ClassTable | None:
    """Where the conditioning of a pipeline comes from: a text, a table beside it, or its labels.

    Args:
        found: the components.
        denoiser: one of them.
        names: of the classes, as they were given.
        said: the text around a name, and whole texts of some classes.
        labels: name -> row, as a diffusion transformer's pipeline has them.

    Returns:
        The table; None for an unconditional pipeline.
    """
    encoder = next((found[k] for k in ("text_encoder", "bert") if k in found), None)
    rows = label_table(denoiser)
    if encoder is not None and "tokenizer" in found:
        texts = _texts(names, said)
        rows = text_table(encoder, found["tokenizer"], [*texts, ""])
        return ClassTable(rows, True, names, texts)
    if "class_embedding" in found:
        return ClassTable(found["class_embedding"].weight, True, names)
    if rows is None:
        return None
    # a transformer's configuration says how many classes there are; else the names do
    config: Mapping[str, Any] = getattr(denoiser, "config", {})
    null = len(rows) == (config.get("num_embeds_ada_norm") or len(names)) + 1
    return ClassTable(rows, null, names or _label_names(labels, len(rows) - null))


def _texts(names: tuple[object, ...], said: ClassMap) -> tuple[str, ...]:
    """The texts of a text-conditioned pipeline's classes.

    Raises:
        InputError: no names, no place for them in the prompt, or one text for two of them.
    """
    if not names:
        raise InputError(
            "this pipeline is conditioned on text: give the class names, "
            "from_diffusers(pipeline, classes=...)"
        )
    prompt = said.prompt or PROMPT
    if "{}" not in prompt:
        raise InputError(
            f"prompt {prompt!r} has no place for the class's name; write it with {{}}, as "
            "'a photo of a {}'"
        )
    texts = tuple(said.entries.get(str(n)) or prompt.replace("{}", str(n)) for n in names)
    if twice := [text for i, text in enumerate(texts) if text in texts[:i]]:
        raise InputError(
            f"prompt {twice[0]!r} stands for two classes, whose images would start alike; give "
            "each its own"
        )
    return texts


def _label_names(labels: Mapping[str, int] | None, rows: int) -> tuple[str, ...]:
    """The first name of every row, from a pipeline's own labels; none where a row has no name."""
    named: dict[int, str] = {}
    for name, row in (labels or {}).items():
        named.setdefault(row, name)
    if sorted(named) != list(range(rows)):
        return ()
    return tuple(named[row] for row in sorted(named))


@torch.no_grad()
def text_table(encoder: Any, tokenizer: Any, texts: list[str]) -> Float[Tensor, "K LD"]:
    """Text embeddings: what a text-to-image U-Net attends to, padded to the tokenizer's length.

    Args:
        encoder: a text encoder of transformers, which ships no types for it.
        tokenizer: the tokenizer that belongs to it.
        texts: one for each row of the table.
    """
    allowed = tokenizer.model_max_length
    # some tokenizers allow more than their encoder has positions for
    most = min(allowed, getattr(encoder.config, "max_position_embeddings", None) or allowed)
    tokens = tokenizer(
        texts, padding="max_length", max_length=most, truncation=True, return_tensors="pt"
    )
    for text, ids in zip(texts, tokenizer(texts).input_ids, strict=True):
        if len(ids) > most:
            warnings.warn(
                f"the text encoder reads {most} tokens, and {text!r} has {len(ids)}: its end is "
                "cut off; use a shorter prompt or class name",
                stacklevel=6,
            )
    use_mask = getattr(encoder.config, "use_attention_mask", False)
    device = next(encoder.parameters()).device
    options = {"attention_mask": tokens.attention_mask.to(device)} if use_mask else {}
    embedded: Tensor = encoder.eval()(tokens.input_ids.to(device), **options)[0]
    return embedded.flatten(1)

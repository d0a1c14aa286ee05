"""A prior's folder, written and read: diffusers' layout, and a class embedding beside it.

Weights are read from safetensors alone. Every one of them must be named by its architecture, and
no other may be there; nothing in the folder is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.io.extras import needed
from ld3m_min.io.files import read_json, write_json
from ld3m_min.io.tensors import from_bytes
from ld3m_min.prior.class_map import PROMPT
from ld3m_min.prior.diffusers_pipelines import parts_of
from ld3m_min.prior.kinds import AUTOENCODERS, DENOISERS, Autoencoder, Denoiser
from ld3m_min.prior.parts import GivenParts
from ld3m_min.prior.place import has_index, whole_prior
from ld3m_min.prior.schedule import Scheduler
from ld3m_min.prior.weights import Found

LIBRARIES = ("diffusers", "transformers")
STYLE = "StyleGenerator"  # what the folder of GLaD's prior names
EMBEDDING = Path("class_embedding") / "model.safetensors"
# the sparing way to load a network would need the package accelerate
OPTIONS = {"low_cpu_mem_usage": False, "use_safetensors": True, "local_files_only": True}


def write_parts(
    folder: Path,
    index: Mapping[str, object],
    autoencoder: Autoencoder,
    denoiser: Denoiser | None,
    scheduler: Scheduler | None,
    class_embedding: nn.Embedding | None,
) -> None:
    """Write the parts of a prior, each into a folder of its own, and `model_index.json`.

    An earlier prior in the folder is replaced as a whole. Where there is none, the index comes
    last, and without it there is no prior.

    Args:
        folder: made where it is not there.
        index: what `model_index.json` says besides the classes of the parts.
        autoencoder: goes into `vae`.
        denoiser: goes into `unet` or `transformer`, if there is one.
        scheduler: goes into `scheduler`, if there is one.
        class_embedding: goes into `class_embedding`, if there is one.
    """
    from safetensors.torch import save_file

    if has_index(folder):
        with whole_prior(folder) as empty:
            write_parts(empty, index, autoencoder, denoiser, scheduler, class_embedding)
        return
    network = "transformer" if "Transformer" in type(denoiser).__name__ else "unet"
    parts: dict[str, Any] = {"vae": autoencoder, network: denoiser, "scheduler": scheduler}
    names = {}
    for name, part in parts.items():
        if part is not None:
            part.save_pretrained(folder / name)
            names[name] = type(part).__name__
            config = folder / name / part.config_name
            # diffusers writes down where a part was loaded from, a folder of this machine
            write_json(config, {k: v for k, v in read_json(config).items() if k != "_name_or_path"})
    if class_embedding is not None:
        (folder / EMBEDDING).parent.mkdir(exist_ok=True)
        weight = class_embedding.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / EMBEDDING)
    write_json(folder / "model_index.json", {**index, **names})


def read_parts(
    found: Found,
    kind: str,
    *,
    classes: Iterable[object] = (),
    prompt: str = PROMPT,
    prompts: Mapping[str, str] | None = None,
) -> GivenParts:
    """The parts of a prior, from a folder that this package or diffusers wrote.

    Args:
        found: the folder, and what the prior's source is to be.
        kind: the class that this package's own folders name.
        classes: class names, for a pipeline of diffusers.
        prompt: the text around a name, for a pipeline of diffusers.
        prompts: whole texts of some classes, for a pipeline of diffusers.

    Raises:
        FileNotFoundError: a part is missing.
        InputError: a part is damaged or does not belong there.
    """
    if (alone := _read_alone(found.folder)) is not None:
        return GivenParts(alone, source=found.source)
    index = read_index(found.folder)
    import diffusers

    if index["_class_name"] == kind:
        return _own_parts(found, index)
    if index["_class_name"] == STYLE:
        raise InputError(
            f"{found.source} holds a style-based generator; load it by {STYLE}.from_pretrained, or "
            "by ld3m_min.prior.load_prior"
        )
    # a filter of images has no part in this
    unused = {"safety_checker": None, "requires_safety_checker": False}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        found.folder,
        **OPTIONS,
        **(unused if "safety_checker" in index else {}),
        **_pipeline_networks(found.folder, index),
    )
    parts = parts_of(pipeline, classes=classes, prompt=prompt, prompts=prompts)
    return replace(parts, source=found.source)


def _read_alone(folder: Path) -> Autoencoder | None:
    """The autoencoder of a folder that holds nothing else, as diffusers saves one; or None.

    Raises:
        InputError: it is damaged.
    """
    import diffusers

    kind = autoencoder_alone(folder)
    if kind is None:
        return None
    autoencoder: Autoencoder = loaded(getattr(diffusers, kind), folder, OPTIONS)
    return autoencoder


def autoencoder_alone(folder: Path) -> str | None:
    """The class of the autoencoder in a folder that holds nothing else; no weights are read.

    Args:
        folder: of a prior.

    Returns:
        The class's name in diffusers; None where the folder holds something else.

    Raises:
        InputError: its configuration is damaged.
    """
    file = folder / "config.json"
    if (folder / "model_index.json").exists() or not file.exists():
        return None
    config = read_json(file)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    return kind if kind in AUTOENCODERS else None


def is_text_conditioned(folder: Path) -> bool:
    """Whether a folder holds a pipeline that is conditioned on text: it needs the class names.

    Args:
        folder: of a prior.

    Raises:
        FileNotFoundError: it has no index.
        InputError: that is damaged.
    """
    if not (folder / "model_index.json").exists() and (folder / "config.json").exists():
        return False
    index = read_index(folder)
    there = {name for name, value in index.items() if value not in (None, [None, None])}
    return "tokenizer" in there and bool(there & {"text_encoder", "bert"})


def _own_parts(found: Found, index: Mapping[str, Any]) -> GivenParts:
    """The parts in a folder of `save_pretrained`.

    Raises:
        FileNotFoundError: a part is missing.
        InputError: a part is damaged, or of a kind that is not supported.
    """
    import diffusers

    check_complete(found.folder, index)
    known = {
        "vae": AUTOENCODERS,
        "unet": DENOISERS,
        "transformer": DENOISERS,
        "scheduler": tuple(n for n in dir(diffusers) if n.endswith("Scheduler")),
    }
    parts: dict[str, object] = {}
    for name in ("vae", *(n for n in known if n != "vae" and n in index)):
        if index.get(name) not in known[name]:
            raise InputError(
                f"{found.source}: model_index.json names {index.get(name)!r} as {name}; expected "
                f"one of {known[name]}"
            )
        part, place = getattr(diffusers, index[name]), found.folder / name
        if name == "scheduler":
            try:
                parts[name] = part.from_pretrained(place, local_files_only=True)
            except Exception as error:  # one such file fails in as many ways as a network's
                raise InputError(
                    f"{place} holds no {index[name]} that can be loaded: {error}"
                ) from error
        else:
            parts[name] = loaded(part, place, OPTIONS)
    embedding = None
    if index.get("conditional"):
        embedding = nn.Embedding.from_pretrained(read_embedding(found.folder / EMBEDDING))
    return GivenParts(
        parts["vae"],
        parts.get("unet") or parts.get("transformer"),
        parts.get("scheduler"),
        embedding,
        index.get("classes", ()),
        index.get("null", True),
        found.source,
    )


def _pipeline_networks(folder: Path, index: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks of a pipeline's folder, name -> network; each tensor comes from its file.

    Args:
        folder: the pipeline's.
        index: as :func:`read_index` gives it.

    Raises:
        InputError: as :func:`loaded`.
    """
    import diffusers

    networks = {}
    for name, value in index.items():
        named = not name.startswith("_") and isinstance(value, list) and len(value) == 2
        if not named or value[0] is None or name == "safety_checker":
            continue
        library: object = getattr(diffusers.pipelines, value[0], None)
        if value[0] == "diffusers":
            library = diffusers
        elif value[0] == "transformers":
            library = needed("transformers", "a prior that is told its classes in words")
        part = getattr(library, value[1], None)
        if isinstance(part, type) and issubclass(part, nn.Module):
            theirs = {k: v for k, v in OPTIONS.items() if k != "low_cpu_mem_usage"}
            own = theirs if value[0] == "transformers" else OPTIONS
            networks[name] = loaded(part, folder / name, own)
    return networks


def read_index(folder: Path) -> dict[str, Any]:
    """A prior's `model_index.json`: no code, no library but `LIBRARIES`, no path is named in it.

    Raises:
        FileNotFoundError: it is missing.
        InputError: it is damaged, or names what must not be loaded.
    """
    import diffusers

    file = folder / "model_index.json"
    if not file.exists() and (inner := folder / "model").joinpath(file.name).exists():
        raise FileNotFoundError(f"{folder} is the folder of a training; its prior is {inner}")
    index = read_json(file)
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(
            f"{file} does not name the class of a pipeline or prior; code in the folder is "
            "never run"
        )
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or name == "classes":
            continue
        library = value[0] if len(value) == 2 else None
        known = library in LIBRARIES or (
            isinstance(library, str) and hasattr(diffusers.pipelines, library)
        )
        own_code = (folder / name / f"{library}.py").exists()
        if value != [None, None] and (not known or own_code):
            raise InputError(
                f"{file} takes {name} from {library!r}; only parts of {', '.join(LIBRARIES)} are "
                "loaded"
            )
    _check_shards(folder)
    return index


def _check_shards(folder: Path) -> None:
    """Whether the weights that the indices of shards name lie beside them.

    Raises:
        InputError: one of them does not.
    """
    for part in sorted(folder.glob("*/*.index.json")):
        shards = read_json(part)
        shards = shards.get("weight_map") if isinstance(shards, dict) else None
        for name in shards.values() if isinstance(shards, dict) else [shards]:
            if not isinstance(name, str) or Path(name).name != name or "\\" in name:
                raise InputError(f"{part} names the weights {name!r}; they must lie beside it")


def check_complete(folder: Path, index: Mapping[str, Any]) -> None:
    """Whether each part that the index of this package names is there; no weights are read.

    Where one is missing, diffusers would ask the hub for what it takes for its name.

    Args:
        folder: of a prior.
        index: as :func:`read_index` gives it.

    Raises:
        FileNotFoundError: a part is missing.
        InputError: the index is damaged, or a part's configuration is.
    """
    _check_own_index(folder / "model_index.json", index)
    for name in ("vae", "unet", "transformer", "scheduler"):
        if name not in index:
            continue
        file = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
        if not file.is_file():
            raise FileNotFoundError(f"{folder} lacks {name}/{file.name}; copy the folder again")
        if not isinstance(read_json(file), dict):
            raise InputError(f"{file} holds no configuration; copy the folder again")


def _check_own_index(file: Path, index: Mapping[str, Any]) -> None:
    """Whether the index of a folder of `save_pretrained` has fields of the right kind.

    Raises:
        InputError: one is of another kind.
    """
    kinds = {"conditional": bool, "null": bool, "classes": list}
    wrong = [k for k, kind in kinds.items() if k in index and not isinstance(index[k], kind)]
    if wrong or not all(isinstance(c, str) for c in index.get("classes", ())):
        raise InputError(
            f"{file}: {', '.join(wrong) or 'classes'} must be a list of text (classes), true or "
            "false"
        )


def loaded(part: type[Any], folder: Path, options: Mapping[str, object]) -> nn.Module:
    """A network from its folder, whole: every weight named by the architecture and no other.

    Args:
        part: a network's class, of diffusers or transformers.
        folder: where its configuration and weights are.
        options: of its `from_pretrained`.

    Raises:
        InputError: damaged, or weights missing, too many, or of another shape.
    """
    try:
        network, info = part.from_pretrained(folder, output_loading_info=True, **options)
    except (
        Exception
    ) as error:  # a hostile configuration fails in as many ways as there are networks
        raise InputError(
            f"{folder} holds no {part.__name__} that can be loaded: {error}"
        ) from error
    odd = {
        "missing": info["missing_keys"],
        "not of it": info["unexpected_keys"],
        "of another shape": info["mismatched_keys"],
    }
    if part.__module__.startswith("transformers."):
        odd.pop("not of it")  # older files of theirs hold buffers that newer networks compute
    wrong = "; ".join(f"{len(v)} {k} (first {min(map(str, v))})" for k, v in odd.items() if v)
    if wrong:
        raise InputError(f"{folder} does not hold the weights of its {part.__name__}: {wrong}")
    assert isinstance(network, nn.Module)
    return network


def read_embedding(file: Path) -> Float[Tensor, "rows LD"]:
    """The class embedding of a prior: one matrix called "weight" and nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is damaged, or holds something else.
    """
    try:
        tensors = from_bytes(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} is missing: the prior has classes, but no class embedding"
        ) from None
    weight = tensors.get("weight")
    if len(tensors) != 1 or weight is None or weight.dim() != 2 or not weight.is_floating_point():
        found = ", ".join(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in sorted(tensors.items())[:3])
        raise InputError(
            f"{file} must hold one matrix called weight, but holds {found or 'nothing'}"
        )
    return weight


def check_finite(networks: Iterable[nn.Module], source: str) -> None:
    """Whether every weight of a loaded prior is a number; else every image would be nothing.

    Args:
        networks: of the prior.
        source: the prior's name, for the message.

    Raises:
        InputError: one is not finite.
    """
    bad = [
        f"{type(m).__name__}.{k}"
        for m in networks
        for k, p in m.named_parameters()
        if not bool(torch.isfinite(p).all())
    ]
    if bad:
        raise InputError(
            f"prior {source!r} has weights that are not finite: {', '.join(bad[:3])}; the files "
            "are damaged"
        )

"""The fields of `set.json`, and of a recipe, by type and range: before anything is made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ld3m_min.config import DistilConfig
from ld3m_min.data.dataset import NORMALISATIONS
from ld3m_min.errors import InputError
from ld3m_min.io.values import from_dict
from ld3m_min.set_files import mapping_of
from ld3m_min.spaces.build import SPACES

_SAID = ("algorithm", "dataset", "dsa", "seed", "size", "space")  # fields that a card says
_LEAST = {"mean": -math.inf, "std": 0.0}  # of a normalisation: what each value lies above


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Every field of a set's index by type and range.

    Args:
        folder: the set's, as messages name it.
        index: what `set.json` holds, as JSON has it.

    Raises:
        InputError: a field is not as it must be; names it.
    """
    where = str(folder / "set.json")
    for name, kind in {"classes": list, "recipe": dict, "history": list, "sha256": str}.items():
        _need(where, isinstance(index.get(name), kind), name)
    classes, files = index["classes"], index.get("files", [])
    _need(where, bool(classes) and all(isinstance(c, str) for c in classes), "classes")
    _need(where, all(isinstance(h, dict) for h in index["history"]), "history")
    _need(where, isinstance(files, list) and all(isinstance(f, str) for f in files), "files")
    check_recipe(where, index["recipe"])


def _need(where: str, fine: bool, what: str) -> None:
    """InputError that names a field of a set's index or recipe, unless it is fine."""
    if not fine:
        raise InputError(
            f"{where} lacks {what}, or holds something else there; it is no whole set: get it "
            "again, or take what a set has that was distilled"
        )


def as_json(
    recipe: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A recipe and a history as a file gives them back: tuples are lists there.

    Args:
        recipe: of a set.
        history: of a set.

    Raises:
        InputError: they hold what JSON doesn't have.
    """
    try:
        said: tuple[dict[str, Any], list[dict[str, Any]]] = json.loads(
            json.dumps([dict(recipe), list(history)])
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the set's recipe or history can't be written as JSON ({error}); give plain numbers, "
            "texts, lists and mappings"
        ) from None
    return said[0], said[1]


def check_recipe(where: str, recipe: Mapping[str, Any]) -> None:
    """All that a folder's card, its readers and its codes need of a set's recipe.

    Args:
        where: what messages call the set.
        recipe: as JSON has it.

    Raises:
        InputError: a field is missing or not as it must be; names it.
    """
    check_kinds(where, recipe)
    config, norm, prior = (mapping_of(recipe, k) for k in ("config", "normalisation", "prior"))
    _need(where, config.get("space") in tuple(SPACES), "recipe.config")
    for name in _SAID:  # a default would be said of a set that may have been made otherwise
        _need(where, name in config, f"recipe.config.{name}")
    try:
        from_dict(DistilConfig, config, "recipe.config")
    except InputError as error:
        raise InputError(f"{where}: {error}; it is no whole set") from None
    _need(where, norm.get("kind") in NORMALISATIONS, "recipe.normalisation")
    for name in _LEAST:
        _need(where, name in norm, f"recipe.normalisation.{name}")
    named = isinstance(prior.get("source"), str)
    needless = not SPACES[config["space"]].needs_prior and not recipe.get("prior")
    _need(where, named or needless, "recipe.prior")


def check_kinds(where: str, recipe: Mapping[str, Any]) -> None:
    """What there is of a recipe, each field by its kind; any of them may be missing.

    Args:
        where: what messages call the set.
        recipe: as JSON has it.

    Raises:
        InputError: a field is of another kind; names it.
    """
    for name in ("config", "normalisation", "data", "prior", "plan"):
        _need(where, isinstance(recipe.get(name), dict | None), f"recipe.{name}")
    norm, prior = (mapping_of(recipe, k) for k in ("normalisation", "prior"))
    for name, least in _LEAST.items():
        fine = name not in norm or _three_above(norm[name], least)
        _need(where, fine, f"recipe.normalisation.{name}")
    _need(where, isinstance(prior.get("digest", ""), str), "recipe.prior.digest")
    _need(where, type(prior.get("bytes", 0)) is int, "recipe.prior.bytes")  # older sets: none
    _need(where, isinstance(recipe.get("licence", ""), str), "recipe.licence")
    entries = {"evaluation": _is_evaluation, "selection": _is_selection, "drawn": _is_drawn}
    for name, is_one in entries.items():
        _need(where, name not in recipe or is_one(recipe[name]), f"recipe.{name}")


def _is_drawn(value: object) -> bool:
    """Whether a recipe's entry of what was drawn is one, as far as a card looks at it."""
    return isinstance(value, dict) and isinstance(value.get("method"), str)


def _is_selection(value: object) -> bool:
    """Whether a recipe's entry of a selection is one, as far as a card or a count looks at it."""
    if not isinstance(value, dict) or not isinstance(value.get("method"), str):
        return False
    if "bytes" not in value:
        return True
    sizes, form = value["bytes"], [value.get("format"), value.get("quality")]
    counts = isinstance(sizes, list) and all(type(n) is int for n in sizes)
    return counts and isinstance(form[0], str) and type(form[1]) is int


def _is_evaluation(value: object) -> bool:
    """Whether a recipe's entry of an evaluation is one, as far as a card looks at it."""
    if not isinstance(value, dict) or not isinstance(value.get("accuracies"), dict):
        return False
    texts = isinstance(value.get("data"), str) and isinstance(value.get("split"), str)
    each = value["accuracies"].values()
    return texts and all(
        isinstance(v, list) and all(type(x) is float and 0 <= x <= 1 for x in v) for v in each
    )


def _three_above(values: object, least: float) -> bool:
    """Whether a value is a list of three finite numbers above a bound."""
    if not isinstance(values, list) or len(values) != 3:
        return False
    return all(type(v) in (int, float) and math.isfinite(v) and v > least for v in values)

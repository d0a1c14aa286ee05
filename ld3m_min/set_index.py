"""The fields of `set.json`, each by type and range, before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ld3m_min.config import DistilConfig
from ld3m_min.data.dataset import NORMALISATIONS
from ld3m_min.errors import InputError
from ld3m_min.io.values import from_dict
from ld3m_min.set_files import mapping_of
from ld3m_min.spaces.build import SPACES


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Every field of a set's index by type and range.

    Args:
        folder: the set's, as messages name it.
        index: what `set.json` holds, as JSON has it.

    Raises:
        InputError: a field is not as it must be; names it.
    """
    for name, kind in {"classes": list, "recipe": dict, "history": list, "sha256": str}.items():
        _need(folder, isinstance(index.get(name), kind), name)
    classes, files = index["classes"], index.get("files", [])
    _need(folder, bool(classes) and all(isinstance(c, str) for c in classes), "classes")
    _need(folder, all(isinstance(h, dict) for h in index["history"]), "history")
    _need(folder, isinstance(files, list) and all(isinstance(f, str) for f in files), "files")
    _check_recipe(folder, index["recipe"])


def _need(folder: Path, fine: bool, what: str) -> None:
    """InputError that names a field of a set's index, unless it is fine."""
    if not fine:
        raise InputError(
            f"{folder / 'set.json'} lacks {what}, or holds something else there; it is no whole set"
        )


def _check_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Configuration, normalisation and prior of a set's recipe.

    Args:
        folder: the set's, as messages name it.
        recipe: as JSON has it.

    Raises:
        InputError: a field is not as it must be; names it.
    """
    config, norm, prior = (mapping_of(recipe, k) for k in ("config", "normalisation", "prior"))
    _need(folder, config.get("space") in tuple(SPACES), "recipe.config")
    try:
        from_dict(DistilConfig, config, "recipe.config")
    except InputError as error:
        raise InputError(f"{folder / 'set.json'}: {error}; it is no whole set") from None
    _need(folder, norm.get("kind") in NORMALISATIONS, "recipe.normalisation")
    for name, least in (("mean", -math.inf), ("std", 0.0)):
        _need(folder, _three_above(norm.get(name), least), f"recipe.normalisation.{name}")
    named = isinstance(prior.get("source"), str)
    needless = not SPACES[config["space"]].needs_prior and not recipe.get("prior")
    _need(folder, named or needless, "recipe.prior")
    _need(folder, isinstance(prior.get("digest", ""), str), "recipe.prior.digest")
    _need(folder, type(prior.get("bytes", 0)) is int, "recipe.prior.bytes")  # older sets: none
    _need(folder, isinstance(recipe.get("licence", ""), str), "recipe.licence")
    _need(folder, "evaluation" not in recipe or _is_evaluation(recipe["evaluation"]), "evaluation")
    _need(folder, "selection" not in recipe or _is_selection(recipe["selection"]), "selection")


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

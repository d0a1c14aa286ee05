"""What may be done with a set's images: what its maker states, and what follows if nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ld3m_min.errors import InputError
from ld3m_min.io.text import in_card

HUB = (  # identifiers that the Hugging Face Hub knows; any other text is shown as it is
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "mit",
    "odbl",
    "odc-by",
    "openrail",
    "pddl",
    "unlicense",
)


def with_licence(recipe: Mapping[str, Any], licence: str | None) -> dict[str, Any]:
    """A recipe that states a licence.

    Args:
        recipe: of a set.
        licence: such as "CC-BY-4.0", or any text; None leaves what the recipe says.

    Raises:
        InputError: an empty text states nothing.
    """
    if licence is None:
        return dict(recipe)
    if not licence.strip():
        raise InputError("an empty licence states nothing; name one, such as CC-BY-4.0")
    return {**recipe, "licence": licence.strip()}


def front_matter(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a dataset card's head that say the licence.

    Args:
        recipe: of a set.
    """
    stated = recipe.get("licence")
    if stated is None:
        return {"license": "unknown"}
    if stated.lower() in HUB:
        return {"license": stated.lower()}
    return {"license": "other", "license_name": stated}


def in_words(recipe: Mapping[str, Any]) -> str:
    """A card's paragraph on the licence: what is stated, and whose images the set derives from.

    Args:
        recipe: of a set.
    """
    config, data = recipe.get("config") or {}, recipe.get("data") or {}
    name = in_card(data.get("name") or config.get("dataset") or "unknown data")
    source = f" ({in_card(data['source'])})" if data.get("source") else ""
    derived = (
        f"The images derive from those of {name}{source}: what their makers and the people in them "
        "allow holds for these too."
    )
    if "licence" in recipe:
        return f"Licence: {in_card(recipe['licence'])}. {derived}"
    return f"The licence of these images is not stated. {derived}"

"""A set as others may have it: without paths of the machine that made it, and on the Hub.

A set's folder is for its maker: its recipe may name the folder of a prior, and a prior of one's
own lies beside it. What leaves the machine has neither.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ld3m_min.errors import InputError
from ld3m_min.licences import with_licence
from ld3m_min.prior.weights import is_explicit
from ld3m_min.set_contents import SetContents
from ld3m_min.set_files import HUB_ID, OWN_PRIOR, is_path
from ld3m_min.set_folder import write_set

NOT_SHARED = "not shared"  # stands where a recipe named a prior that only its maker has


@dataclass(frozen=True)
class Pushed:
    """Where a set is on the Hub.

    Attributes:
        url: of its page.
        private: whether its owner alone sees it.
        files: how many were uploaded.
    """

    url: str
    private: bool
    files: int


def shareable(contents: SetContents, licence: str | None = None) -> SetContents:
    """The same set without a path of this machine.

    A prior that no other machine finds by its name becomes "not shared"; its digest stays, so who
    has it can prove it.

    Args:
        contents: of the set.
        licence: of the images; None keeps what the recipe states.

    Raises:
        InputError: the licence is empty.
    """
    recipe = _without_paths(with_licence(contents.recipe, licence))
    prior = contents.recipe.get("prior") or {}
    source = prior.get("source")
    if source is not None and (source == OWN_PRIOR or is_path(source)):
        recipe["prior"]["source"] = NOT_SHARED
    named = (contents.recipe.get("config") or {}).get("prior")
    if isinstance(named, str) and is_path(named):
        recipe["config"]["prior"] = NOT_SHARED
    history: tuple[dict[str, Any], ...] = tuple(_without_paths(h) for h in contents.history)
    return replace(contents, recipe=recipe, history=history)


def _without_paths(value: Any) -> Any:
    """A JSON-able value whose texts are no paths of this machine, nor hold its home's.

    Args:
        value: of any depth.
    """
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(v) for v in value]
    if not isinstance(value, str):
        return value
    if is_explicit(value) or re.match(r"[A-Za-z]:[\\/]", value):
        return Path(value.replace("\\", "/")).name or NOT_SHARED
    for folder in (_home(), str(Path.cwd()), tempfile.gettempdir()):
        value = value.replace(folder, "...") if len(folder) > 1 else value
    return value


def _home() -> str:
    """The user's home; "" for a user without one."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def push_contents(
    contents: SetContents,
    repo_id: str,
    *,
    private: bool = True,
    licence: str | None = None,
    real_images: bool = False,
    token: str | None = None,
    message: str = "A distilled set",
    api: Any = None,
) -> Pushed:
    """Upload a set to the Hugging Face Hub as a data set; see `SyntheticSet.push_to_hub`.

    Args:
        contents: of the set.
        repo_id: "name" or "owner/name".
        private: whether its owner alone is to see it.
        licence: of the images; None keeps what the recipe states.
        real_images: whether the images may be real ones.
        token: of the Hub; None takes the one that `hf auth login` kept.
        message: of the commit.
        api: stands in for `huggingface_hub.HfApi`; None takes that.

    Returns:
        Where the set is.

    Raises:
        InputError: the id is none, the images are real ones and were not said to be, or the
            repository is public where a private one is meant.
        OSError: the Hub can't be reached, or refuses.
    """
    one = re.fullmatch(r"[\w.-]+", repo_id)
    if not (one or HUB_ID.fullmatch(repo_id)) or "@" in repo_id or ".." in repo_id:
        raise InputError(f"{repo_id!r} is no name on the Hub; give NAME or OWNER/NAME")
    if contents.real and not real_images:
        raise InputError(
            f"the images of this set are {contents.real}; they may not be yours to publish, so "
            "nothing was uploaded. If they are, say --real-images (real_images=True)"
        )
    shared = shareable(contents, licence)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="ld3m-") as scratch:
        folder = Path(scratch) / "set"
        folder.mkdir()
        write_set(folder, shared)
        try:
            url = _upload(api, repo_id, folder, private, message)
        except InputError:
            raise
        except Exception as error:  # the Hub's client has many: offline, no token, no such owner
            raise OSError(
                f"the Hub did not take the set ({_first_line(error)}); look at the network, at "
                "HF_HUB_OFFLINE, and log in with `hf auth login`. The same command tries again"
            ) from error
        files = sum(f.is_file() for f in folder.rglob("*"))
    return Pushed(url, private, files)


def _upload(api: Any, repo_id: str, folder: Path, private: bool, message: str) -> str:
    """Make the repository where there is none, and put the folder there; its address."""
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    name = getattr(url, "repo_id", repo_id)  # with its owner
    if private and not api.repo_info(name, repo_type="dataset").private:
        raise InputError(
            f"{name} is there already, and public; say --public (private=False) if the set may be "
            "seen by all, or give another name"
        )
    api.upload_folder(
        repo_id=name,
        repo_type="dataset",
        folder_path=folder,
        commit_message=message,
        delete_patterns=["images/**"],  # of an earlier set in this place
    )
    return str(url)


def _first_line(error: Exception) -> str:
    """What an error says, on one line and without a token."""
    said = str(error).strip().splitlines() or [""]
    return re.sub(r"hf_\w+", "hf_...", f"{type(error).__name__}: {said[0]}")

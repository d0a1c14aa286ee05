"""A set as others may have it: without paths of the machine that made it, and on the Hub.

A set's folder is for its maker: its recipe may name the folder of a prior, and a prior of one's
own lies beside it. What leaves the machine has neither.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ld3m_min.errors import InputError
from ld3m_min.io.text import shown
from ld3m_min.licences import with_licence
from ld3m_min.set_contents import SetContents
from ld3m_min.set_files import CHECKSUMS, HUB_ID, OWN_PRIOR, is_path, mapping_of
from ld3m_min.set_folder import write_set
from ld3m_min.set_index import as_json, check_kinds

NOT_SHARED = "not shared"  # stands where a recipe named a prior that only its maker has
# what people say in their own words, a licence and the prompts of classes: it may look like a path
_VERBATIM = ("licence", "classes")
# absolute, of a home, or relative as paths begin: POSIX, Windows, network share
_PATH = re.compile(r"/|~([A-Za-z_][\w.-]*)?[\\/]|\.{1,2}[\\/]|\\\\|[A-Za-z]:[\\/]")
# of a set of ours on the Hub; `*` of such a pattern takes a slash too
_PICTURES = "images/[0-9][0-9][0-9]*/[0-9][0-9][0-9][0-9][0-9]*.png"
_OF_A_NEW_ONE = (".gitattributes", "README.md")  # what a repository may hold before the first push


@dataclass(frozen=True)
class Pushed:
    """Where a set is on the Hub.

    Attributes:
        url: of its page.
        private: whether its owner alone sees it, as the Hub says.
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
        InputError: the licence is empty, or a field of the recipe is of another kind.
    """
    recipe, said = as_json(with_licence(contents.recipe, licence), contents.history)
    check_kinds("the set", recipe)
    drawn = mapping_of(recipe, "drawn")
    for record, name in (
        (mapping_of(recipe, "config"), "prior"),
        (mapping_of(recipe, "prior"), "source"),
        (mapping_of(drawn, "prior"), "source"),
    ):
        named = record.get(name)
        if isinstance(named, str) and (named == OWN_PRIOR or is_path(named)):
            record[name] = NOT_SHARED
    history: tuple[dict[str, Any], ...] = tuple(_without_paths(h) for h in said)
    return replace(contents, recipe=_without_paths(recipe), history=history)


def _without_paths(value: Any) -> Any:
    """A JSON-able value whose texts are no paths of this machine, nor hold its home's.

    Args:
        value: of any depth.
    """
    if isinstance(value, dict):
        return {k: v if k in _VERBATIM else _without_paths(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(v) for v in value]
    if not isinstance(value, str):
        return value
    slashes = value.replace("\\", "/")
    if _PATH.match(value) or ("/" in slashes and os.path.exists(value)):
        return Path(slashes).name or NOT_SHARED
    for folder in (_home(), str(Path.cwd()), tempfile.gettempdir()):
        if len(folder) > 1:  # as a whole: the /tmp of an address is no folder here
            value = re.sub(rf"(?<![\w.~-]){re.escape(folder)}(?![\w-])", "...", value)
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
        InputError: the id is none, the images are real ones and were not said to be, the recipe
            lacks something, or the repository is public where a private one is meant, or holds
            something else than a set.
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
        write_set(folder, shared, exported=True)
        try:
            url, alone = _upload(api, repo_id, folder, private, message)
        except InputError:
            raise
        except Exception as error:  # the Hub's client has many: offline, no token, no such owner
            raise OSError(
                f"the Hub did not take the set ({_first_line(error)}); look at the network, at "
                "HF_HUB_OFFLINE, and log in with `hf auth login`. The same command tries again"
            ) from error
        files = sum(f.is_file() for f in folder.rglob("*"))
    return Pushed(url, alone, files)


def _upload(api: Any, repo_id: str, folder: Path, private: bool, message: str) -> tuple[str, bool]:
    """Make the repository where there is none, and put the folder there.

    Returns:
        Its address, and whether its owner alone sees it: one that was there stays as it was.
    """
    url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    name = getattr(url, "repo_id", repo_id)  # with its owner
    alone = bool(api.repo_info(name, repo_type="dataset").private)
    if private and not alone:
        raise InputError(
            f"{name} is there already, and public; say --public (private=False) if the set may be "
            "seen by all, or give another name"
        )
    _check_ours(name, api.list_repo_files(name, repo_type="dataset"))
    api.upload_folder(
        repo_id=name,
        repo_type="dataset",
        folder_path=folder,
        commit_message=message,
        delete_patterns=[_PICTURES],  # of an earlier set in this place
    )
    return str(url), alone


def _check_ours(name: str, files: Iterable[str]) -> None:
    """Refuse a repository of something else, whose files a set would replace.

    Args:
        name: of the repository.
        files: that it holds.

    Raises:
        InputError: it holds files, and no set is among them.
    """
    others = sorted({*files} - {*_OF_A_NEW_ONE})
    if others and not {"set.json", CHECKSUMS} <= {*others}:
        raise InputError(
            f"{name} is there already and holds something else than a set "
            f"({', '.join(map(shown, others[:5]))}); nothing was uploaded: give another name"
        )


def _first_line(error: Exception) -> str:
    """What an error says, on one line and without a token."""
    said = str(error).strip().splitlines() or [""]
    return re.sub(r"hf_\w+", "hf_...", f"{type(error).__name__}: {said[0]}")

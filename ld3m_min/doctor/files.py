"""Folders, caches, shipped priors, the Hub, and the terminal."""

from __future__ import annotations

import hashlib
import locale
import os
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from ld3m_min.doctor.check import Check, gib, private
from ld3m_min.prior.weights import SHIPPED, WEIGHTS, folder_digest

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
SECONDS = 3.0  # that the Hub is waited for
LITTLE = 2**30  # bytes of a disk that decoded images fill soon


def priors(folder: Path = SHIPPED) -> list[Check]:
    """Whether each shipped prior is there, can be read, and is what was installed.

    Args:
        folder: of the shipped priors.
    """
    found = sorted(p for p in folder.glob("*") if (p / "model_index.json").is_file())
    if not any(p.name == "digits" for p in found):
        todo = "install ld3m-min anew: the prior of the digits comes with it"
        return [Check("shipped priors", "the digits' is not there", "broken", todo)]
    stated, checks = _installed(), []
    for prior in found:
        wrong = _damage(prior, stated)
        says = f"{len(list(prior.rglob('*.safetensors')))} files of weights"
        if wrong:
            todo = "install ld3m-min anew"
            checks.append(Check(f"prior {prior.name}", wrong, "broken", todo))
        else:
            how = "as installed" if stated else "whole"
            says += f", {how}, digest {folder_digest(prior)[:12]}"
            checks.append(Check(f"prior {prior.name}", says))
    return checks


def _installed() -> dict[Path, str]:
    """The checksum of each file that an installed wheel states; nothing in a checkout."""
    try:
        files = metadata.files("ld3m-min") or []
    except metadata.PackageNotFoundError:
        return {}
    return {
        Path(str(f.locate())).resolve(): f.hash.value
        for f in files
        if f.hash and f.hash.mode == "sha256" and "shipped" in f.parts
    }


def _damage(prior: Path, stated: Mapping[Path, str]) -> str:
    """What is wrong with a prior's files; "" where nothing is.

    Args:
        prior: its folder.
        stated: the checksum of each file as it was installed, where that is known.
    """
    from safetensors import SafetensorError, safe_open

    for file in sorted(f for f in prior.rglob("*") if f.suffix in WEIGHTS):
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as opened:  # looks at the header and at the length
                    list(opened.keys())
            content = file.read_bytes()
        except (OSError, SafetensorError) as error:
            return f"{file.relative_to(prior)} can't be read ({type(error).__name__})"
        known = stated.get(file.resolve())
        made = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        if known is not None and made != known:
            return f"{file.relative_to(prior)} is not what was installed"
    return ""


def hub(environ: Mapping[str, str] = os.environ, seconds: float = SECONDS) -> Check:
    """Whether the Hugging Face Hub can be reached; never an error.

    Args:
        environ: the variables of the environment.
        seconds: that it is waited for.
    """
    said = [f"{name}={environ[name]}" for name in OFFLINE if environ.get(name)]
    if any(
        environ[name].lower() not in ("0", "false", "no", "off")
        for name in OFFLINE
        if environ.get(name)
    ):
        says = f"not asked, since {', '.join(said)}; shipped priors and downloaded ones work"
        return Check("hub", says)
    from huggingface_hub.constants import ENDPOINT

    host, answers = urlsplit(ENDPOINT).hostname or "", list[str]()
    asked = threading.Thread(target=_ask, args=(ENDPOINT, seconds, answers), daemon=True)
    asked.start()
    asked.join(seconds + 1)  # looking up a name knows no limit of its own
    if answers and answers[0] == "":
        return Check("hub", f"{host} answers")
    why = answers[0] if answers else "no answer"
    todo = "nothing, if you need no prior from there; set HF_HUB_OFFLINE=1 to ask no more"
    return Check("hub", f"{host} can't be reached ({why})", "advice", todo)


def _ask(address: str, seconds: float, answers: list[str]) -> None:
    """Append "" where an address answers, and else why it does not."""
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310  # the Hub's own
        urllib.request.urlopen(request, timeout=seconds).close()  # noqa: S310
        answers.append("")
    except urllib.error.HTTPError:  # it answers, though it does not like the question
        answers.append("")
    except Exception as error:
        answers.append(type(error).__name__)


def caches() -> list[Check]:
    """Where they lie, how large they are, what is free there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from ld3m_min.data.cache import cache_folder

    return [
        _folder("cache of images", cache_folder(), "LD3M_CACHE"),
        _folder("cache of the hub", Path(HF_HUB_CACHE), "HF_HOME"),
        _folder("temporary files", Path(tempfile.gettempdir()), "TMPDIR", measure=False),
        _folder("runs", Path("runs").absolute(), "--out", measure=False),
    ]


def _folder(name: str, folder: Path, setting: str, *, measure: bool = True) -> Check:
    """Whether a folder can be written to, and what its disk has left.

    Args:
        name: of the check.
        folder: it need not be there.
        setting: what names another one.
        measure: whether its size is told.
    """
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        free = shutil.disk_usage(above).free
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        why = error.strerror or type(error).__name__
        says = f"{private(folder)} can't be written to ({why})"
        return Check(name, says, "advice", f"name another folder by {setting}")
    size = f"{gib(_size(folder))}, " if measure and folder.exists() else ""
    new = "" if folder.exists() else ", is made when it is needed"
    says = f"{private(folder)}{new}: {size}{gib(free)} free on its disk"
    if free < LITTLE:
        return Check(name, says, "advice", f"free some space, or name another folder by {setting}")
    return Check(name, says)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder, links not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def encoding() -> Check:
    """Whether names and messages of any script come through."""
    out = getattr(sys.stdout, "encoding", None) or "unknown"
    names, texts = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    says = f"names of files {names}, texts {texts}, terminal {out}"
    if all(x.lower().replace("-", "") == "utf8" for x in (names, texts, out)):
        return Check("encoding", says)
    return Check("encoding", says, "advice", "set PYTHONUTF8=1, or LANG=C.UTF-8")

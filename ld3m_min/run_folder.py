"""The folder of a run: what may stand there before it begins."""

from __future__ import annotations

from pathlib import Path

from ld3m_min.errors import InputError
from ld3m_min.io.disk import StrPath
from ld3m_min.io.text import shown
from ld3m_min.set_files import check_place, is_index_file

FOLDERS = ("checkpoints", "evaluation", "experts", "set", "snapshots")
PAGES = ("preview.html", "report.html", "report.json")
MARKS = ('name="generator" content="ld3m_min"', '"ld3m_min":')  # of pages, and of records


def check_run_folder(out: StrPath) -> None:
    """Refuse a place where a run could not be kept, or would replace what is not its own.

    Args:
        out: of the run; it need not exist.

    Raises:
        InputError: it holds something of another kind under a name that the run needs, or a page
            that no run of ours wrote.
        OSError: it is no folder, or can't be one.
    """
    out = Path(out)
    try:
        if out.is_symlink() and not out.exists():
            raise NotADirectoryError(f"{out} is a link that leads nowhere; give another place")
        if not out.exists():
            return
    except OSError as error:
        raise OSError(f"{out} can't be the run's folder: {error.strerror or error}") from error
    if not out.is_dir():
        raise NotADirectoryError(f"{out} is no folder, and a run needs one; give another place")
    for name in FOLDERS:
        if (out / name).exists() and not (out / name).is_dir():
            raise InputError(
                f"{out / name} is no folder, and the run keeps its {name} there; move it, or give "
                "the run another place"
            )
    for name in PAGES:
        if (out / name).is_dir():
            raise InputError(
                f"{out / name} is a folder, and the run writes its page there; move it, or give "
                "the run another place"
            )
    check_place(out / "set")
    if (out / "checkpoints").is_dir() or is_index_file(out / "set" / "set.json"):
        return  # a run of ours, whatever its pages say
    others = [name for name in PAGES if (out / name).exists() and not _is_ours(out / name)]
    previewed = (out / "preview.html").exists() and "preview.html" not in others
    if not previewed and (out / "snapshots").is_dir() and any((out / "snapshots").iterdir()):
        others.append("snapshots")
    if others:
        raise InputError(
            f"{out} holds {', '.join(map(shown, others))}, which no run of ours wrote and this one "
            "would replace; move them, or give the run another place"
        )


def _is_ours(page: Path) -> bool:
    """Whether a page or record names the package, as those of a run do."""
    try:
        said = page.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return any(mark in said for mark in MARKS)

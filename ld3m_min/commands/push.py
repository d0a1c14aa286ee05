"""`python -m ld3m_min push`: see :meth:`ld3m_min.synthetic.SyntheticSet.push_to_hub`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from ld3m_min.commands.plain import PlainCommand
from ld3m_min.synthetic import SyntheticSet

ABOUT = """Upload the set in SET to the Hugging Face Hub, as the data set REPO.

It is private unless `--public` is said. No path of this machine and no prior goes with it. Log in
with `hf auth login` before.
"""


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What is uploaded where.

    Attributes:
        set: folder of the distilled set, as `distil` writes it.
        repo: NAME or OWNER/NAME on the Hub; it is made where it isn't there.
        public: show it to all.
        licence: of the images, such as CC-BY-4.0; by default what the set says.
        real_images: the images are real ones, as those of `select` are, and may be uploaded.
    """

    set: tyro.conf.Positional[Path]
    repo: tyro.conf.Positional[str]
    public: bool = False
    licence: str | None = None
    real_images: bool = False


def run(options: PushOptions) -> None:
    """Upload, and say where the set is."""
    made = SyntheticSet.load(options.set)
    pushed = made.push_to_hub(
        options.repo,
        private=not options.public,
        licence=options.licence,
        real_images=options.real_images,
    )
    who = "you alone see it" if pushed.private else "everybody sees it"
    if options.public and pushed.private:
        who += ": it was private before, and its settings on the Hub make it public"
    print(f"{len(made.labels)} images in {pushed.files} files at {pushed.url}; {who}")


COMMAND = PlainCommand("push", ABOUT, PushOptions, run)

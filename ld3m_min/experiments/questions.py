"""What is asked of the digits, fixed before it is measured (page "The question comes first").

All is asked with one image per class and DM, of the mean accuracy of the networks that took no part
in the distillation, paired by the seed of the distillation.
"""

from __future__ import annotations

from dataclasses import dataclass

from ld3m_min.experiments.cells import Cell

SEEDS = 8  # distillations of each system that is asked for
ELSEWHERE = 6  # of any other: with fewer the sign-flip test can't reach 0.05
# the least p value of the sign-flip test with eight seeds is 2 / 2^8; Holm multiplies it by the
# number of questions at most, and 6 * 2 / 2^8 = 0.047 is the last below 0.05
MOST_SECONDARY = 6
SMALL = 0.01  # a difference below one point is called none that matters
LEVEL = 0.05  # of the corrected p value
PILOT_SEEDS = tuple(range(900, 906))  # of the distillations that tell how many are needed


@dataclass(frozen=True)
class Question:
    """One comparison.

    Attributes:
        text: as one would ask it.
        ours: the cell, with seed 0, of which more is expected.
        theirs: the cell, with seed 0, that it is compared with.
    """

    text: str
    ours: Cell
    theirs: Cell


def verdict(low: float, high: float, p: float) -> str:
    """What a comparison says, by the rules of the page.

    Args:
        low: end of the difference's 95 % interval, a fraction.
        high: its other end.
        p: corrected for the number of questions.

    Returns:
        "no difference that matters", "better", "worse" or "not known".
    """
    if low > -SMALL and high < SMALL:
        return "no difference that matters"
    if low <= 0 <= high or p >= LEVEL:
        return "not known"
    return "better" if low > 0 else "worse"


def _cell(space: str, variant: str = "") -> Cell:
    """A cell of the evidence.

    Args:
        space: the system.
        variant: a name of `grids.VARIANTS`.
    """
    return Cell("digits", "evidence", space, "DM", 1, variant=variant)


_PAPER, _CODE, _LATENTS = _cell("ld3m-paper"), _cell("ld3m-code"), _cell("autoencoder")
PRIMARY = {
    "paper - autoencoder": Question(
        "Does the diffusion chain of equation (6) add anything to the autoencoder alone?",
        _PAPER,
        _LATENTS,
    ),
    "code - autoencoder": Question(
        "Does the diffusion chain of the public code add anything to the autoencoder alone?",
        _CODE,
        _LATENTS,
    ),
}
SECONDARY = {
    "autoencoder - pixels": Question(
        "Are latents better to learn than pixels?", _LATENTS, _cell("pixel")
    ),
    "paper - pixels": Question("Is LD3M better than pixels (table 1)?", _PAPER, _cell("pixel")),
    "paper - GLaD": Question("Is LD3M better than GLaD (table 1)?", _PAPER, _cell("glad-f")),
    "paper - no residual": Question(
        "Does the residual help (table 4)?", _PAPER, _cell("ld3m-paper", "no-residual")
    ),
    "paper - c only": Question(
        "Does learning Z, with the residual, help beside c (table 4)?",
        _PAPER,
        _cell("ld3m-paper", "c-only"),
    ),
    "code - paper": Question("Is the public code better than equation (6)?", _CODE, _PAPER),
}
ASKED = frozenset(
    side for asked in (PRIMARY | SECONDARY).values() for side in (asked.ours, asked.theirs)
)

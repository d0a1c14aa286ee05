"""The memory of the generator's two passes, for any number of images without counting each.

Every tensor of the generator grows in proportion to the images, or not at all. So few images tell
what many need: two numbers of them where all pass at once, one batch where a plan has batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ld3m_min.backprop import Plan

FEW = (2, 3)  # images that are counted in the place of many
DIRECT = 12  # images up to which all are counted


@dataclass(frozen=True)
class Phases:
    """What the generator needs, matching left out.

    Attributes:
        forward: the most bytes during the forward pass.
        held: bytes that it leaves for the backward pass, its images among them.
        backward: the most bytes during the backward pass.
        flops: of both.
    """

    forward: int
    held: int
    backward: int
    flops: int


def phases_of(
    count: Callable[[int, Plan], Phases], plan: Plan, n: int, image: int, codes: int
) -> Phases:
    """The phases of n images.

    Args:
        count: counts a number of images under a plan, one by one.
        plan: what is recomputed.
        n: images.
        image: bytes of one.
        codes: bytes of what one image is made of.
    """
    if n <= max(DIRECT, 2 * (plan.chunk or 0)):
        return count(n, plan)
    if plan.chunk is None:
        return _on_a_line(count, plan, n, image)
    size = plan.chunk
    one = count(size, plan)
    each = one.held if size == 1 else (one.held - count(1, plan).held) / (size - 1)
    held = one.held + math.ceil((n - size) * each)
    others = n * (image + 3 * codes)  # the images or their gradients, and those of the codes
    return Phases(
        forward=max(held - one.held + one.forward, held + n * image),
        held=held,
        backward=held - one.held + one.backward + others,
        flops=math.ceil(one.flops * n / size),
    )


def _on_a_line(count: Callable[[int, Plan], Phases], plan: Plan, n: int, image: int) -> Phases:
    """What few images need, drawn out to n; where they are put together they are there twice."""
    a, b = (count(few, plan) for few in FEW)
    steps = (n - FEW[0]) / (FEW[1] - FEW[0])

    def at(small: int, large: int) -> int:
        return math.ceil(small + steps * (large - small))

    found = Phases(
        at(a.forward, b.forward),
        at(a.held, b.held),
        at(a.backward, b.backward),
        at(a.flops, b.flops),
    )
    least = found.held + n * image
    return replace(found, forward=max(found.forward, least), backward=max(found.backward, least))

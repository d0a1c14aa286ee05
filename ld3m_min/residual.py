"""How the initial state enters the later ones: equation (6) and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from ld3m_min.io.values import checked

# What may be mixed in, from the prior, Z and z_T. To add one, add a line.
SOURCES: dict[str, Callable[[Prior, Tensor, Tensor], Tensor]] = {
    "noised": lambda prior, Z, z_T: z_T,
    "clean": lambda prior, Z, z_T: Z,
    "quantized": lambda prior, Z, z_T: prior.quantize(Z),
}
INTO = ("mean", "x0", "noise", "none")
SOURCE = tuple(SOURCES)
# The weight of what is mixed in, from s. The first step has s = 1, and s falls towards the last.
# To add a decay, add a line.
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda s: s,
    "cosine": lambda s: (1 - math.cos(math.pi * s)) / 2,
    "sqrt": lambda s: math.sqrt(s),
    "exponential": lambda s: math.expm1(5 * s) / math.expm1(5),
    "constant": lambda s: 0.5,
    "none": lambda s: 0.0,
}


class _NotCheckedAtRunTime(type(Protocol)):  # type: ignore[misc]  # typing's own metaclass is private
    """Metaclass of protocols that the type checker reads and the checks at run time let pass.

    An ordinary protocol looks every attribute up for `isinstance`. That would refuse a prior that
    has only what one test needs, and it would ask an autoencoder alone for its `train_steps`, which
    it refuses by an error.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Prior(Protocol, metaclass=_NotCheckedAtRunTime):
    """What the sampler needs of a prior (section 2.2); `ld3m_min.prior` has the real one."""

    @property
    def conditional(self) -> bool:
        """Whether there is a conditioning c, and a null class to guide away from."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        ...

    @property
    def train_steps(self) -> int:
        """N: how many steps the noise schedule was trained with."""
        ...

    @property
    def alpha_bar(self) -> Float[Tensor, " N"]:
        """gamma_t of each step of the training."""
        ...

    def predict_noise(
        self, z: Float[Tensor, "B c h w"], t: Int[Tensor, " B"], c: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B c h w"]:
        """f_theta(c, z_t, gamma_t), the noise in z at training step t."""
        ...

    def null_conditioning(self, n: int) -> Float[Tensor, "n L D"]:
        """The conditioning of the null class, n times."""
        ...

    def quantize(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Latents of the codebook; z itself where there is no codebook."""
        ...

    def decode(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1]."""
        ...


@dataclass(frozen=True)
class Residual:
    """How the initial state enters the later ones: equation (6) and its relatives.

    "noise" is a route of ours, for the question that section 6 leaves open. With s the source and w
    its weight, the noise that would lead from s to the state z_t is

        e_s = (z_t - sqrt(gamma_t) s) / sqrt(1 - gamma_t),

    the forward process solved for the noise, and the step goes on with (1 - w) e + w e_s in place
    of the predicted e. The clean latent that this noise implies is (1 - w) x0 + w s, which is what
    "x0" goes on with too; but there the step adds e again, which doesn't belong to that latent.
    Here latent and noise still make z_t together, as every step of DDIM assumes. So where Z is
    mixed in and all weights are 1, the chain goes back along the forward process itself:
    z_t = sqrt(gamma_t) Z + sqrt(1 - gamma_t) noise. In the last steps e_s is large, as 1 - gamma_t
    is small, and it is the decay that keeps it out.

    Attributes:
        into: "mean" mixes it into the mean of the next state (equation 6). "x0" mixes it into the
            predicted clean latent (the public code). "noise" mixes the noise that leads from it to
            the state into the predicted noise (ours). "none" leaves it out (equation 5, a row of
            the ablation).
        source: what is mixed in: "noised" z_T (the paper), "clean" Z, or "quantized" Z (the public
            code).
        decay: how its weight falls over the steps, a name of `DECAYS`: "linear" (paper and public
            code), "cosine", "sqrt" or "exponential". "constant" keeps 1/2, "none" is 0 throughout.

    Example:
        >>> from ld3m_min import Residual
        >>> paper, code = Residual("mean", "noised"), Residual("x0", "quantized")
        >>> [paper.weight(k, 4) for k in (3, 2, 1, 0)]
        [1.0, 0.75, 0.5, 0.25]
        >>> [round(code.weight(k, 4), 2) for k in (3, 2, 1, 0)]
        [1.0, 0.67, 0.33, 0.0]
    """

    __no_type_check__ = True  # at run time: `checked` converts or refuses, in a sentence

    into: str = "x0"
    source: str = "quantized"
    decay: str = "linear"

    def __post_init__(self) -> None:
        checked(self, into=INTO, source=SOURCE, decay=tuple(DECAYS))

    def weight(self, k: int, n: int) -> float:
        """Weight of the source at step k.

        Equation (6) uses t / T = (k + 1) / n, so that even the last step keeps 1 / n. The public
        code uses k / (n - 1), which is 1 at the first step and 0 at the last; so does "noise". A
        single step is a first step: weight 1.

        Args:
            k: n - 1 at the first step, 0 at the last.
            n: number of steps.

        Returns:
            The weight, in [0, 1].
        """
        if self.into == "none":
            return 0.0
        s = (k + 1) / n if self.into == "mean" or n == 1 else k / (n - 1)
        return DECAYS[self.decay](s)


PAPER_RESIDUAL = Residual("mean", "noised", "linear")
PUBLIC_RESIDUAL = Residual("x0", "quantized", "linear")
NO_RESIDUAL = Residual("none", "noised", "none")

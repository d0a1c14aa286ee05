"""How the frozen networks are run: precision, memory format, compiler.

A backend is believed only after a comparison with eager float32.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ld3m_min.errors import InputError
from ld3m_min.frozen import PLAIN, Backend, BackendPlan, FrozenPrior, Network, lowered
from ld3m_min.io.digests import versions
from ld3m_min.io.seeds import seeded

# how far one call may be from eager float32, relative norms of output and gradients: rounding,
# not another result
ROUNDING = {"float32": 1e-3, "bfloat16": 0.1}
# of a :class:`Prepared`, where its network is in a prior
PARTS = {"decoder": "autoencoder", "denoiser": "denoiser"}


class Prepared:
    """A prior whose noise predictor and decoder run by the backend that a plan names.

    All else is the prior's own. A backend is believed only after :meth:`verify` has compared it
    with eager float32 on this device. In bfloat16 the weights are cast once: autocast would cast a
    frozen weight at every call and keep each copy for the backward pass, T copies of the U-Net.
    What enters and what leaves is float32.

    Args:
        prior: whose networks are copied.
        plan: names the backend.
        of: the weights that are copied, by :func:`~ld3m_min.io.digests.versions`.

    Attributes:
        ran: the backend that runs "denoiser" and "decoder" at present.
        of: which weights it is a copy of.
    """

    # the prior's own, by `__getattr__`
    conditional: bool
    latent_channels: int
    train_steps: int
    alpha_bar: Float[Tensor, " N"]
    autoencoder: Any
    denoiser: Any
    modules: list[nn.Module]
    device: torch.device
    null_conditioning: Callable[[int], Tensor]
    quantize: Callable[[Tensor], Tensor]
    unscaled: Callable[[Tensor], Tensor]
    _like: Callable[..., FrozenPrior]

    def __init__(
        self,
        prior: FrozenPrior,
        plan: BackendPlan,
        of: tuple[tuple[object, ...], ...] | None = None,
    ) -> None:
        self._prior, self.of = prior, of
        self._verified: set[tuple[object, ...]] = set()
        names = ("decoder",) if prior.denoiser is None else ("decoder", "denoiser")
        self.ran = {name: _backend(plan) for name in names}
        self._networks = {name: self._built(name, backend) for name, backend in self.ran.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    @property
    def copies(self) -> list[nn.Module]:
        """The networks that are held beside the prior's own."""
        return [
            getattr(network.holder, PARTS[name])
            for name, network in self._networks.items()
            if network.holder is not self._prior
        ]

    def _built(self, name: str, backend: Backend) -> Network:
        """A network as a backend runs it: a copy, or the prior's own."""
        own: torch.dtype = next(self._prior.autoencoder.parameters()).dtype
        if backend == PLAIN:
            return Network(self._prior, own)
        part = PARTS[name]
        module: nn.Module = copy.deepcopy(getattr(self._prior, part))
        low = backend.precision == "bfloat16"
        if low:
            module = lowered(module)
        if backend.channels_last:
            # torch declares no overload with this argument alone
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if backend.compile != "off":
            compile_part(module, "forward" if name == "denoiser" else "decode", backend.compile)
        return Network(self._prior._like(**{part: module}), torch.bfloat16 if low else own)

    def predict_noise(
        self, z: Float[Tensor, "B c h w"], t: Int[Tensor, " B"], c: Float[Tensor, "B L D"] | None
    ) -> Float[Tensor, "B c h w"]:
        """As the prior's, f_theta of equation (4); float32 in and out.

        Args:
            z: the state.
            t: the training step of each latent.
            c: the conditioning; None for an unconditional prior.
        """
        return self._networks["denoiser"].predict_noise(z, t, c)

    def decode(self, z: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 H W"]:
        """As the prior's; float32 in and out. The codebook is looked up in float32.

        Args:
            z: latents.

        Returns:
            Images in [0, 1].
        """
        images = self._networks["decoder"].decode(self._prior.quantize(z))
        return ((images + 1) / 2).clamp(0, 1)

    def verify(
        self, name: str, z: Float[Tensor, "B c h w"], c: Float[Tensor, "B L D"] | None = None
    ) -> None:
        """Compare a network's backend with eager float32 for inputs like these, once.

        The output is compared, and the gradient of each input that requires one. Where it is wrong,
        a simpler one is taken, and a warning says so. What runs in the end is in `ran`.

        Args:
            name: "denoiser" or "decoder".
            z: gives shape and device, and whether it requires a gradient; not values.
            c: as z; None for the decoder, or for an unconditional prior.
        """
        if self.ran[name].compile == "off":
            # only compiled code is made for one shape; a part of the batch tells as much
            z, c = z[:1], None if c is None else c[:1]
        # what compiled code is made anew for
        grad = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        like = name, grad, *((tuple(x.shape), x.requires_grad) for x in (z, c) if x is not None)
        if (self.ran[name], like) in self._verified or z.is_meta:
            return
        compiled = self.ran[name].compile != "off"
        simpler = [self.ran[name]._replace(compile="off"), PLAIN] if compiled else [PLAIN]
        for backend in simpler:
            wrong = None if self.ran[name] == PLAIN else self._wrong(name, z, c)
            if not wrong:
                break
            warnings.warn(
                f"the {name} run by {_words(self.ran[name])} is not the eager one on this machine "
                f"({wrong}); from here on it is run by {_words(backend)}",
                stacklevel=4,
            )
            self.ran[name], self._networks[name] = backend, self._built(name, backend)
        self._verified.add((self.ran[name], like))

    def _wrong(
        self, name: str, z: Float[Tensor, "B c h w"], c: Float[Tensor, "B L D"] | None
    ) -> str | None:
        """What differs from eager float32 by more than rounding, in words; None: nothing does."""
        plain = Network(self._prior, z.dtype)
        try:
            found = _results(self._networks[name], name, z, c)
        except Exception as error:  # no compiler, no cache, an operation that it does not know
            if self.ran[name].compile == "off":
                raise
            said = str(error).strip()
            why = said.splitlines()[0][:200] if said else type(error).__name__
            return f"it cannot be compiled: {why}"
        for quantity, b in _results(plain, name, z, c).items():
            a = found[quantity]
            deviation = float((a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny))
            if not deviation <= ROUNDING[self.ran[name].precision]:
                return f"its {quantity} is off by {deviation:.1%}"
        return None


class _Copies(dict[tuple[Backend, torch.device], Prepared]):
    """What a prior holds of :func:`prepared`; a copy of the prior, or its pickle, has none."""

    def __reduce__(self) -> tuple[type[_Copies], tuple[()]]:
        return _Copies, ()


def prepared(prior: FrozenPrior | Prepared, plan: BackendPlan) -> FrozenPrior | Prepared:
    """The prior as a plan runs it.

    Args:
        prior: frozen.
        plan: names the backend.

    Returns:
        The prior itself, or a :class:`Prepared`, which is made once for the weights it has.

    Raises:
        InputError: the plan is not yet decided.
    """
    if plan.auto:
        raise InputError(
            "plan.auto is not yet decided; "
            "let ld3m_min.planner.fallback.choose name a plan that fits"
        )
    backend = _backend(plan)
    if isinstance(prior, Prepared) or backend == PLAIN:
        return prior
    # on the prior, so that they go when it goes: each refers to its prior
    copies: _Copies = vars(prior).setdefault("_copies", _Copies())
    current = versions(t for m in prior.modules for t in (*m.parameters(), *m.buffers()))
    key = backend, prior.device
    found = copies.get(key)
    if found is None or found.of != current or found._prior is not prior:
        found = copies[key] = Prepared(prior, plan, current)
    return found


def backend_of(
    prior: FrozenPrior | Prepared, plan: BackendPlan
) -> dict[str, dict[str, str | bool]] | None:
    """What runs the networks under a plan, for records.

    That is what the plan names, but where :meth:`Prepared.verify` has fallen back.

    Args:
        prior: frozen.
        plan: names the backend.

    Returns:
        The fields of the :class:`Backend` of "denoiser" and of "decoder"; None where the plan is
        not yet decided.
    """
    if plan.auto:
        return None
    fast = prepared(prior, plan)
    ran = fast.ran if isinstance(fast, Prepared) else {"denoiser": PLAIN, "decoder": PLAIN}
    return {name: backend._asdict() for name, backend in ran.items()}


def compile_part(module: nn.Module, method: str, mode: str) -> None:
    """Compile one method of a network of diffusers, all but its upsampling, in place.

    Inductor of PyTorch 2.13 gives zero for the gradient through `Upsample2D` on a CPU where it
    fuses it with what is around.

    Args:
        module: the network.
        method: "forward" or "decode".
        mode: of `torch.compile`.
    """
    for part in module.modules():
        if type(part).__name__ == "Upsample2D":
            part.forward = torch.compiler.disable(part.forward)
    setattr(module, method, torch.compile(getattr(module, method), mode=mode, dynamic=False))


def _backend(plan: BackendPlan) -> Backend:
    """The backend that a plan names."""
    return Backend(plan.precision, plan.channels_last, plan.compile)


def _words(backend: Backend) -> str:
    """A backend as a message calls it."""
    kind = "eager" if backend.compile == "off" else "compiled"
    return f"{kind} {backend.precision}" + " in channels-last format" * backend.channels_last


def _results(
    network: Network, name: str, z: Float[Tensor, "B c h w"], c: Float[Tensor, "B L D"] | None
) -> dict[str, Tensor]:
    """Output and input gradients of a network for drawn inputs, the same at every call.

    There are gradients of the inputs that require one, in the grad mode that holds.

    Args:
        network: what is run.
        name: "denoiser" or "decoder".
        z: gives shape, type and device, and whether it requires a gradient.
        c: as z, or None.

    Returns:
        The results, by what a message calls them.
    """
    generator = seeded(0, "verify", name)

    def drawn(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=z.dtype).to(z.device)

    given = {"gradient of Z": z, "gradient of c": c}
    inputs = {
        what: drawn(x.shape).requires_grad_(x.requires_grad)
        for what, x in given.items()
        if x is not None
    }
    if name == "decoder":
        out = network.decode(inputs["gradient of Z"])
    else:
        t = torch.full((len(z),), network.holder.train_steps // 2, device=z.device)
        out = network.predict_noise(inputs["gradient of Z"], t, inputs.get("gradient of c"))
    wanted = {what: x for what, x in inputs.items() if x.requires_grad}
    if not wanted:
        return {"output": out}
    loss = (out * drawn(out.shape)).sum()
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    return {"output": out.detach(), **dict(zip(wanted, gradients, strict=True))}

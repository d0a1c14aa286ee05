"""One stage of the training of a prior: Adam, its rate, averaged weights, checkpoints."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ld3m_min.backends import compile_part
from ld3m_min.errors import NotFinite
from ld3m_min.io.checkpoints import Checkpoint, Checkpointer
from ld3m_min.io.files import write_bytes
from ld3m_min.io.progress import bar
from ld3m_min.io.tensors import to_bytes

Loss = Callable[[int], Float[Tensor, ""]]  # the loss of a training step, by its number
COMPILE_FROM = 2000  # steps from which on a compiled denoiser pays for its compilation


@runtime_checkable
class Carried(Protocol):
    """What a loss carries from step to step, beside the networks: it is saved with them."""

    def state(self) -> Mapping[str, Tensor]:
        """All of it, by name."""

    def load(self, found: Mapping[str, Tensor], /) -> None:
        """Take over what :meth:`state` gave."""


@runtime_checkable
class Look(Protocol):
    """Pictures on the way, see :class:`ld3m_min.prior.progress_pictures.Look`."""

    def due(self, step: int, steps: int, /) -> bool:
        """Whether it is time, after `step` of `steps` steps."""

    @property
    def show(self) -> Callable[[int], None]:
        """Is given the number of steps that are done."""


class Optimiser:
    """Adam on some networks, and the averages of their weights.

    Args:
        modules: the networks, by name.
        lr: the largest learning rate.
        ema: how much of the average stays at a step, in the long run.
        steps: of the whole training.
        betas: of Adam.
        fused: take PyTorch's fused Adam.
        only: names of the parameters that are trained, "network.parameter"; None for all.
        constant: keep the rate, and start the averages from the weights that are there: for
            networks that are trained already. Else the rate rises, and falls as a cosine does, and
            the averages follow quickly at first.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        lr: float,
        ema: float,
        steps: int,
        betas: tuple[float, float] = (0.9, 0.999),
        fused: bool = False,
        only: Collection[str] | None = None,
        constant: bool = False,
    ) -> None:
        self.params: dict[str, Tensor] = {
            f"{m}.{k}": p
            for m, net in modules.items()
            for k, p in net.named_parameters()
            if only is None or f"{m}.{k}" in only
        }
        for module in modules.values():
            module.requires_grad_(False).train()
        for weight in self.params.values():
            weight.requires_grad_(True)
        self.weights = list(self.params.values())
        self.average = {k: p.detach().clone() for k, p in self.params.items()}
        self._averages = list(self.average.values())
        self._adam = torch.optim.Adam(
            self.weights, lr=lr, betas=betas, fused=True if fused else None
        )
        self._lr, self._ema, self._steps, self._constant = lr, ema, steps, constant
        self._norms = torch.zeros(())  # the sum stays not finite once a gradient's norm was so

    def step(self, loss: Float[Tensor, ""], step: int) -> None:
        """One step down a loss: clipped gradients, the rate of the step; then the averages.

        Args:
            loss: of this step.
            step: its number, from 0.

        Raises:
            NotFinite: the gradient is not, on the CPU; weights and averages are as they were. A GPU
                isn't waited for: there :meth:`check` has to be called before anything is kept.
        """
        cosine = (1 + math.cos(math.pi * step / self._steps)) / 2
        rate = self._lr * (0.01 + 0.99 * cosine) * min(1, (step + 1) / 100)
        keep = min(self._ema, (step + 1) / (step + 10))
        if self._constant:
            rate, keep = self._lr, self._ema
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.zero_grad()
        loss.backward()
        self._norms = nn.utils.clip_grad_norm_(self.weights, 1.0) + self._norms
        if self._norms.device.type == "cpu":
            self.check(step)
        self._adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self.weights, 1 - keep)

    def check(self, step: int) -> None:
        """Refuse to keep what gradients that were not finite have led to.

        Args:
            step: that was done last.

        Raises:
            NotFinite: a gradient was not, at this step or, on a GPU, since the last call.
        """
        if not torch.isfinite(self._norms):
            raise NotFinite(
                f"the gradient is not finite at step {step}, or shortly before it; the last "
                "checkpoint is whole, start anew in another folder with a lower learning rate"
            )

    def moments(self) -> dict[str, Tensor]:
        """Names of what a state may hold of Adam, each with the weight that it is shaped like."""
        return {f"{s}.{k}": p for s in ("exp_avg", "exp_avg_sq") for k, p in self.params.items()}

    def state(self) -> dict[str, Tensor]:
        """All that the training goes on from, by name."""
        tensors = {f"weight.{k}": p for k, p in self.params.items()}
        tensors |= {f"average.{k}": a for k, a in self.average.items()}
        for k, p in self.params.items():
            if p in self._adam.state:  # not where no gradient has come yet
                tensors |= {f"{s}.{k}": self._adam.state[p][s] for s in ("exp_avg", "exp_avg_sq")}
        return tensors

    @torch.no_grad()
    def load(self, found: Checkpoint) -> None:
        """Take over the state of a checkpoint.

        Args:
            found: what :meth:`state` gave.
        """
        step = torch.tensor(float(found.step))
        for k, p in self.params.items():
            p.copy_(found.tensors[f"weight.{k}"])
            self.average[k].copy_(found.tensors[f"average.{k}"])
            slots = ("exp_avg", "exp_avg_sq")
            if f"exp_avg.{k}" in found.tensors:
                moments = {s: found.tensors[f"{s}.{k}"].to(p.device) for s in slots}
                self._adam.state[p] = moments | {"step": step.clone()}

    @contextmanager
    def averages(self) -> Iterator[None]:
        """While inside, the averages are in the networks; then the weights are again."""
        kept = [p.detach().clone() for p in self.weights]
        with torch.no_grad():
            self.keep_averages()
            yield
            for p, was in zip(self.weights, kept, strict=True):
                p.copy_(was)

    @torch.no_grad()
    def keep_averages(self) -> None:
        """Leave the averages in the networks."""
        for k, p in self.params.items():
            p.copy_(self.average[k])


def fit(
    modules: Mapping[str, nn.Module],
    loss_of: Loss,
    checkpoints: Checkpointer,
    *,
    steps: int,
    lr: float,
    ema: float,
    device: torch.device,
    dtype: torch.dtype,
    progress: bool,
    snapshots: Collection[int] = (),
    only: Collection[str] | None = None,
    constant: bool = False,
    carried: Carried | None = None,
    look: Look | None = None,
) -> None:
    """Train networks on a loss, and leave their averaged weights in them.

    Args:
        modules: the networks, by name; one called "unet" may be compiled.
        loss_of: the loss of a step.
        checkpoints: where the training is kept; its folder's name is the stage's.
        steps: of the whole training.
        lr: the largest learning rate.
        ema: of :class:`Optimiser`.
        device: of the networks.
        dtype: of the forward passes.
        progress: show a bar.
        snapshots: steps after which the averages are kept in a file of their own as well.
        only: of :class:`Optimiser`.
        constant: of :class:`Optimiser`.
        carried: what the loss carries from step to step.
        look: pictures on the way.

    Raises:
        NotFinite: the loss or its gradient is not finite.
        Interrupted: asked to stop, after saving.
    """
    assert checkpoints.folder is not None, "the training of a prior is always kept"
    fast, name = dtype == torch.bfloat16 and device.type == "cpu", checkpoints.folder.name
    optimiser = Optimiser(
        modules, lr=lr, ema=ema, steps=steps, fused=fast, only=only, constant=constant
    )
    found = checkpoints.load(
        like=optimiser.state(),
        optional=optimiser.moments(),
        apart=() if carried is None else carried.state().keys(),
    )
    start = found.step if found else 0
    if found:
        optimiser.load(found)
        if carried is not None:
            carried.load(found.tensors)
    if fast and "unet" in modules and steps - start >= COMPILE_FROM:
        compiled(modules["unet"], optimiser.weights, lambda: loss_of(start), dtype)
    often = 1 if device.type == "cpu" else 50  # a look at the loss waits for the GPU
    shown = bar(range(start, steps), initial=start, total=steps, desc=name, show=progress)
    with checkpoints.stoppable(), few_tokens(fast):
        for step in shown:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = loss_of(step)
            due = checkpoints.due(step + 1, last=step + 1 == steps)
            if (due or step % often == 0) and not torch.isfinite(loss):
                raise NotFinite(
                    f"loss of the {name} is {loss.item()} at step {step}; lower its learning rate"
                )
            optimiser.step(loss, step)
            if step + 1 in snapshots:
                optimiser.check(step)
                file = (
                    checkpoints.folder.parent / "snapshots" / f"{name}-{step + 1:06d}.safetensors"
                )
                write_bytes(file, to_bytes(optimiser.average))
            if step % 20 == 0:
                shown.set_postfix(loss=f"{loss.item():.4f}")
            if due or checkpoints.asked:
                optimiser.check(step)
                more = {} if carried is None else dict(carried.state())
                checkpoints.save(step + 1, optimiser.state() | more)
            checkpoints.leave_if_asked(f"{step + 1:,} of {steps:,} steps of the {name} are saved")
            if look is not None and look.due(step + 1, steps):
                _show(look, optimiser, modules, step + 1)
    optimiser.keep_averages()
    for module in modules.values():
        module.requires_grad_(False).eval()


def _show(look: Look, optimiser: Optimiser, modules: Mapping[str, nn.Module], step: int) -> None:
    """Show the averages of a training that goes on afterwards as if nothing had been.

    A compiled network is run uncompiled: it knows the shapes of its training alone.
    """
    compiled_ones = {m: vars(m).pop("forward") for m in modules.values() if "forward" in vars(m)}
    for module in modules.values():
        module.eval()
    with optimiser.averages():
        look.show(step)
    for module in modules.values():
        module.train()
    for module, forward in compiled_ones.items():
        vars(module)["forward"] = forward


@contextmanager
def few_tokens(fast: bool) -> Iterator[None]:
    """Attention as plain products, and no denormal numbers.

    Plain products are faster than the flash kernel's backward pass for few tokens.

    Args:
        fast: False changes nothing.
    """
    if not fast:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def compiled(
    denoiser: nn.Module,
    weights: Sequence[Tensor],
    loss_of: Callable[[], Float[Tensor, ""]],
    dtype: torch.dtype,
) -> bool:
    """Compile a denoiser in place for its training, if loss and gradients are then what they were.

    Args:
        denoiser: the network.
        weights: its parameters and all that is trained with it.
        loss_of: the loss of one batch, the same at each call.
        dtype: of the forward passes.

    Returns:
        Whether it is compiled; a warning says why not.
    """

    def measured() -> Tensor:
        with few_tokens(True), torch.autocast("cpu", dtype):
            loss = loss_of()
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return torch.cat([loss.detach().view(1), *(g.flatten() for g in found if g is not None)])

    wanted, plain = measured(), denoiser.forward
    try:
        compile_part(denoiser, "forward", "default")
        error = float((measured() - wanted).norm() / wanted.norm())
        if error <= 0.05:  # two roundings to bfloat16 differ by about 0.01
            return True
        why = f"its gradient is off by {error:.0%}"
    except Exception as failed:  # no compiler, no cache, an operation that it doesn't know
        said = str(failed).strip().splitlines()
        why = said[0][:200] if said else type(failed).__name__
    denoiser.forward = plain
    warnings.warn(f"the denoiser is trained uncompiled: {why}", stacklevel=3)
    return False

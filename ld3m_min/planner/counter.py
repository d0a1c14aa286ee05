"""What a computation needs, counted without computing it: memory and operations (section 3.3).

On PyTorch's "meta" device tensors have shapes and no data: every allocation is seen, nothing is
computed. A chain of denoising steps repeats itself. So the result of an operation is derived once
for given shapes, and made again from these.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ld3m_min.prior.latent_diffusion import LatentDiffusionPrior


def _attention_flops(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Operations of fused attention on a CPU, by the shapes."""
    return int(sdpa_flop_count(q.shape, k.shape, v.shape))


def _attention_backward_flops(grad: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """Operations of its backward pass: five matrix products, where the forward pass has two."""
    return 5 * int(sdpa_flop_count(q.shape, k.shape, v.shape)) // 2


# PyTorch's own formulas, and the one it lacks
_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


class _Derived(NamedTuple):
    """What is known of an operation for given shapes.

    Attributes:
        flops: what it costs.
        make: gives a result like its own.
    """

    flops: int
    make: Callable[[], Any]


_DERIVED: dict[Hashable, _Derived] = {}  # by operation and shapes: a step is like the one before it
_VIEWS: set[Hashable] = set()  # operations and shapes whose results can't be made again


@no_type_check  # at run time, in tests: its methods are called at every operation
class Counter(TorchDispatchMode):
    """Counts what is done inside a `with` block.

    Args:
        known: tensors that do not count, such as weights.

    Attributes:
        now: bytes of the tensors that were made inside and are still there.
        peak: the most that `now` has been.
        flops: operations; a multiply-add counts as two.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own has no types
        self.now = self.peak = self.flops = 0
        self._seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(
        self,
        function: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        key = _signature((function, args, tuple(kwargs.items())))
        if key in _DERIVED:
            flops, make = _DERIVED[key]
            out = make()
        else:
            out = function(*args, **kwargs)
            # FlopCounterMode itself would keep tensors alive
            count = _FLOPS.get(function._overloadpacket)
            flops = count(*args, **kwargs, out_val=out) if count else 0
            if key not in _VIEWS and _on_meta((args, kwargs)):
                if _is_new(out, function, args):
                    _DERIVED[key] = _Derived(flops, _maker(out))
                else:
                    _VIEWS.add(key)
        self.flops += flops
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Add a storage that was not seen before; it leaves when it is freed."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        """Subtract a storage that was freed."""
        self._seen.discard(key)
        self.now -= size


@no_type_check
def _signature(x: object) -> Hashable:
    """Of an operation's arguments, all that shapes its result.

    A tensor with data has a signature like no other.
    """
    if isinstance(x, Tensor):
        return (x.shape, x.stride(), x.dtype) if x.is_meta else object()
    if isinstance(x, tuple | list):
        return tuple(map(_signature, x))
    return type(x), x


def _on_meta(given: object) -> bool:
    """Whether no tensor has data, whose signature would never come again."""
    return all(x.is_meta for x in tree_leaves(given) if isinstance(x, Tensor))


def _is_new(out: object, function: Any, args: tuple[Any, ...]) -> bool:
    """Whether others like the result can stand for it.

    They can where it is tensors on meta that share no memory with the arguments.

    Args:
        out: the result.
        function: the operation.
        args: its arguments.
    """
    outs = out if isinstance(out, tuple) else (out,)
    if function._schema.is_mutable or not all(
        x is None or (isinstance(x, Tensor) and x.is_meta) for x in outs
    ):
        return False
    given = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, Tensor)}
    return not any(x is not None and x.untyped_storage()._cdata in given for x in outs)


def _maker(out: tuple[Any, ...] | Tensor | None) -> Callable[[], Any]:
    """What makes a result like this one: tensors on meta, tuples of them, or None."""
    if isinstance(out, tuple):
        each = [_maker(x) for x in out]
        return lambda: tuple(make() for make in each)
    if out is None:
        return lambda: None
    shape, stride, dtype = out.shape, out.stride(), out.dtype
    return lambda: torch.empty_strided(shape, stride, dtype=dtype, device="meta")


@contextmanager
def fused_attention(device: str | torch.device) -> Iterator[None]:
    """On meta tensors, the attention kernel that a device would run.

    It keeps far less than the plain formula. This is a patch and not a function mode, which PyTorch
    leaves during the backward pass, where steps are recomputed.

    Args:
        device: whose kernel is meant; it need not be there.
    """
    plain, on_cpu = F.scaled_dot_product_attention, torch.device(device).type == "cpu"

    def attention(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        if not q.is_meta or attn_mask is not None:
            return plain(q, k, v, attn_mask, *args, **kwargs)
        out: tuple[Tensor, ...]
        if on_cpu:
            out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        elif q.dtype != torch.float32 and q.shape[-1] <= 256:
            out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
        else:
            out = torch.ops.aten._scaled_dot_product_efficient_attention(
                q, k, v, None, q.requires_grad
            )
        return out[0]

    F.scaled_dot_product_attention = attention  # type: ignore[assignment]  # it passes the rest on
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def on_meta(prior: LatentDiffusionPrior) -> LatentDiffusionPrior:
    """A copy of a prior without data, which costs no memory; the noise schedule stays real.

    Args:
        prior: on any device; not touched.
    """
    memo = {
        id(t): nn.Parameter(t.to("meta"), requires_grad=False)
        if isinstance(t, nn.Parameter)
        else t.to("meta")
        for m in prior.modules
        for t in (*m.parameters(), *m.buffers())
    }
    return copy.deepcopy(prior, memo)

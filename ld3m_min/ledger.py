"""What a computation needs, counted without computing it: memory and operations (section 3.3).

On PyTorch's "meta" device tensors have shapes and no data: every allocation is seen, nothing is computed. A chain repeats
itself, so an operation's result is derived once for given shapes and made again from these.
"""
from __future__ import annotations

import copy
import weakref
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

_FLOPS = {  # PyTorch's own formulas, and the one it lacks
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, **kw: sdpa_flop_count(
        q.shape, k.shape, v.shape),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *rest, **kw: 5 * sdpa_flop_count(
        q.shape, k.shape, v.shape) // 2,
}
_DERIVED = {}  # operation and shapes -> what it returns and costs: a step is like the one before it


class Ledger(TorchDispatchMode):
    """What is done inside: bytes of the tensors made (`now`, at most `peak`) and `flops`. `known` tensors don't count."""

    def __init__(self, known=()):
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        key = _signature((function, args, tuple(kwargs.items())))
        if key in _DERIVED:
            flops, made = _DERIVED[key]
            out = made()
        else:
            out = function(*args, **kwargs)
            count = _FLOPS.get(function._overloadpacket)  # FlopCounterMode itself would keep tensors alive
            flops = count(*args, **kwargs, out_val=out) if count else 0
            if _is_new(out, function, args):
                _DERIVED[key] = flops, _maker(out)
        self.flops += flops
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self._seen.discard(key)
        self.now -= size


def _signature(x):
    """Of an operation's arguments, all that shapes its result. A tensor with data has a signature like no other."""
    if isinstance(x, torch.Tensor):
        return (x.shape, x.stride(), x.dtype) if x.is_meta else object()
    if isinstance(x, tuple | list):
        return tuple(map(_signature, x))
    return type(x), x


def _is_new(out, function, args):
    """Whether the result is tensors on meta that share no memory with the arguments, so that others like it can stand for it."""
    outs = out if isinstance(out, tuple) else (out,)
    if function._schema.is_mutable or not all(x is None or (isinstance(x, torch.Tensor) and x.is_meta) for x in outs):
        return False
    given = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
    return not any(x is not None and x.untyped_storage()._cdata in given for x in outs)


def _maker(out):
    if isinstance(out, tuple):
        each = [_maker(x) for x in out]
        return lambda: tuple(make() for make in each)
    if out is None:
        return lambda: None
    shape, stride, dtype = out.shape, out.stride(), out.dtype
    return lambda: torch.empty_strided(shape, stride, dtype=dtype, device="meta")


@contextmanager
def fused_attention(device):
    """On meta tensors, the attention kernel that `device` would run: it keeps far less than the plain formula.

    A patch and not a function mode, which PyTorch leaves during the backward pass, where steps are recomputed.
    """
    plain, on_cpu = F.scaled_dot_product_attention, torch.device(device).type == "cpu"

    def attention(q, k, v, attn_mask=None, *args, **kwargs):
        if not q.is_meta or attn_mask is not None:
            return plain(q, k, v, attn_mask, *args, **kwargs)
        if on_cpu:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
        if q.dtype != torch.float32 and q.shape[-1] <= 256:
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, q.requires_grad)[0]

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


def on_meta(prior):
    """A copy of the prior without data, which costs no memory; the noise schedule stays real."""
    memo = {id(t): nn.Parameter(t.to("meta"), requires_grad=False) if isinstance(t, nn.Parameter) else t.to("meta")
            for m in prior.modules for t in (*m.parameters(), *m.buffers())}
    return copy.deepcopy(prior, memo)

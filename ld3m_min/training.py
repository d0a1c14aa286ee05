"""Many short trainings at a time: networks in step with one another, trainings in threads (sections 2.1 and 4.1).

Evaluation and experts train many small networks of one kind on few images, each on draws of its own. Two things pay.
`Group` holds several networks and makes one training step of all of them: stacked, with each parameter (R, ...) and the
forward pass vectorised over R, where a step is bound by launching kernels (a GPU; a ViT on a few images), else one after
the other. `side_by_side` runs trainings in threads with one PyTorch thread each, because networks this small gain little
from more. How many run together changes nothing in what is drawn, so it changes results by rounding at most, and that
only where they are stacked.
"""
from __future__ import annotations

import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from .networks import Dropout

MOST_PIXELS = 2**21  # of all images in one step; a ResNet18 of full width keeps roughly 8 kB for each


def stacks(name, device):
    """Whether networks of this architecture are trained stacked on a device: measured on the CPU, assumed on a GPU."""
    return torch.device(device).type == "cuda" or name == "ViT"


def group_size(total, images, size):
    """How many of `total` trainings may hold their activations at once, for steps of `images` images of `size` pixels."""
    return max(1, min(total, MOST_PIXELS // (images * size**2)))


class Group:
    """R networks of one architecture, trained by SGD in step with one another.

    Args:
        networks: R of them, on their device, in training mode; they hold the result after :meth:`write_back`.
        momentum, weight_decay: of SGD. stacked: one vectorised pass for all; False is one after the other. Networks with
            buffers (batch normalisation) are never stacked.

    Attributes:
        params: the parameters in definition order, each (R, ...) where stacked, else R lists' worth, network by network.
    """

    def __init__(self, networks, *, momentum=0.0, weight_decay=0.0, stacked=False):
        self.networks = list(networks)
        first = self.networks[0]
        self.stacked = stacked and len(self.networks) > 1 and not any(True for _ in first.buffers())
        self.names = [name for name, _ in first.named_parameters()]
        each = [list(n.parameters()) for n in self.networks]
        if self.stacked:
            self.params = [torch.stack([p.detach() for p in same]).requires_grad_() for same in zip(*each, strict=True)]
        else:
            self.params = [p for parameters in each for p in parameters]
        self.sgd = torch.optim.SGD(self.params, lr=0.0, momentum=momentum, weight_decay=weight_decay, fused=True)
        self.dropouts = [[m for m in n.modules() if isinstance(m, Dropout)] for n in self.networks]

    def step(self, x, labels, lr):
        """One SGD step of each network on its own images: x (R, B, 3, H, W), normalised; labels (R, B); lr a number."""
        self.sgd.param_groups[0]["lr"] = lr
        self.sgd.zero_grad()
        if self.stacked:
            logits = self._logits(x)
            # each network's mean, summed: their gradients do not meet
            (F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / x.shape[1]).backward()
        else:
            for network, images, y in zip(self.networks, x, labels, strict=True):
                F.cross_entropy(network(images), y).backward()
        self.sgd.step()

    def _logits(self, x):
        first, dropouts = self.networks[0], self.dropouts[0]
        masks = []
        if dropouts and first.training:
            shape = first.dropout_shape(x.shape[1])
            masks = [torch.stack([m.draw(shape, x.device) for m in same]) for same in zip(*self.dropouts, strict=True)]

        def one(params, images, *given):
            for module, mask in zip(dropouts, given, strict=bool(given)):
                module.mask = mask
            return functional_call(first, dict(zip(self.names, params, strict=True)), (images,))

        try:
            return torch.vmap(one)(self.params, x, *masks)
        finally:
            for module in dropouts:
                module.mask = None

    @torch.no_grad()
    def write_back(self, params=None):
        """Put `params`, by default the trained ones, into the networks."""
        params = self.params if params is None else params
        if self.stacked:
            for i, network in enumerate(self.networks):
                for p, value in zip(network.parameters(), params, strict=True):
                    p.copy_(value[i])
        else:
            for p, value in zip(self.params, params, strict=True):
                p.copy_(value)
        return self.networks

    def flat(self):
        """Each network's parameters as one detached vector, (R, P), in definition order."""
        if self.stacked:
            return torch.cat([p.detach().flatten(1) for p in self.params], 1)
        n = len(self.names)
        rows = (self.params[i : i + n] for i in range(0, len(self.params), n))
        return torch.stack([torch.cat([p.detach().flatten() for p in row]) for row in rows])

    @torch.no_grad()
    def load_flat(self, rows):
        """Take the parameters (R, P) that :meth:`flat` gave."""
        for i, row in enumerate(rows):
            parts = row.split([p.numel() for p in self.networks[i].parameters()])
            for j, part in enumerate(parts):
                target = self.params[j][i] if self.stacked else self.params[i * len(self.names) + j]
                target.copy_(part.view_as(target))

    def state(self):
        """All that the next step depends on, as tensors by name, (parameters, momenta, dropout's generators)."""
        tensors = {f"param.{i}": p for i, p in enumerate(self.params)}
        for i, p in enumerate(self.params):
            if "momentum_buffer" in self.sgd.state.get(p, {}):
                tensors[f"momentum.{i}"] = self.sgd.state[p]["momentum_buffer"]
        return tensors | self.dropout_state()

    @torch.no_grad()
    def load_state(self, tensors):
        """Take what :meth:`state` gave."""
        for i, p in enumerate(self.params):
            p.copy_(tensors[f"param.{i}"])
            if f"momentum.{i}" in tensors:
                self.sgd.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(tensors[f"momentum.{i}"])
        self.load_dropout_state(tensors)

    def dropout_state(self):
        """The state of every dropout's generator, by name; empty for networks without dropout."""
        return {f"dropout.{i}.{j}": m.generator.get_state() for i, ms in enumerate(self.dropouts) for j, m in enumerate(ms)}

    def load_dropout_state(self, tensors):
        """Take what :meth:`dropout_state` gave."""
        for i, modules in enumerate(self.dropouts):
            for j, module in enumerate(modules):
                module.place(self.params[0].device)
                module.generator.set_state(tensors[f"dropout.{i}.{j}"].cpu())


class Schedule:
    """The draws of R trainings, each from its own generator and in the order in which the plain loop draws them.

    Args:
        n: images in the set. batch: images per step. size: their side. dsa: a :class:`~ld3m_min.augment.DSA`.
    """

    def __init__(self, n, batch, size, dsa):
        self.n, self.batch, self.size, self.dsa = n, batch, size, dsa

    def epoch(self, generators):
        """One epoch's steps: a list of (positions (R, B), R draws)."""
        steps = []
        for g in generators:
            order = torch.randperm(self.n, generator=g).split(self.batch)
            steps.append([(index, self.dsa.draw(len(index), self.size, g)) for index in order])
        return [(torch.stack([i for i, _ in same]), [d for _, d in same]) for same in zip(*steps, strict=True)]

    def augmented(self, x, draws):
        """Images (R, B, 3, H, W), each training's with its own draw."""
        count = x.shape[1]
        return self.dsa.apply_each(x.flatten(0, 1), draws, [count] * len(draws)).unflatten(0, (len(draws), count))


def fast_layout(networks, name):
    """The networks in the memory layout in which their architecture trains fastest on a CPU (AlexNet: channels last).

    Only where it was measured to pay; group normalisation has no fast kernel in that layout.
    """
    if name == "AlexNet" and next(networks[0].parameters()).device.type == "cpu":
        for n in networks:
            n.to(memory_format=torch.channels_last)
            n.register_forward_pre_hook(lambda _, args: (args[0].contiguous(memory_format=torch.channels_last),))
    return networks


@contextmanager
def one_thread_each(threads=1):
    """PyTorch with so many threads for what runs inside, in this thread and in new ones; afterwards as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(work, jobs, *, workers, threads=1, stop, finished=lambda job, result: None):
    """`work(job, halted)` for every job, up to `workers` at a time, in threads of `threads` PyTorch threads each.

    `halted()` tells a job that it shall leave (save and return None): the process was asked to stop, or another job failed.
    `finished(job, result)` is called in the calling thread. The first error is raised when all running jobs have left.

    Args:
        stop: a :class:`~ld3m_min.signals.Stop`.

    Returns:
        Results by job; a job that was halted, or never began, is not among them.
    """
    failed, results = threading.Event(), {}

    def halted():
        return bool(stop.reason) or failed.is_set()

    def run(job):
        torch.set_num_threads(threads)  # of this thread; what it was is put back below
        try:
            return None if halted() else work(job, halted)
        except BaseException:
            failed.set()
            raise

    with one_thread_each(threads), ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        waiting, error = set(futures), None
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)  # awake for signals
                for future in done:
                    error = error or future.exception()
                    if future.exception() is None and future.result() is not None:
                        results[futures[future]] = future.result()
                        finished(futures[future], future.result())
        except BaseException:
            failed.set()
            raise
    if error is not None:
        raise error
    return results


def is_plain(network):
    """Whether each image passes the network by itself and without a draw: no batch normalisation, no dropout."""
    return not any(isinstance(m, (nn.BatchNorm2d, Dropout)) for m in network.modules())

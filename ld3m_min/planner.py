"""What a configuration will cost before it starts: peak memory, operations, seconds (section 3.3).

Memory and operations are counted by :mod:`ld3m_min.ledger` while one iteration runs on tensors without data. Seconds come
from a short measurement on the device itself. The planner picks the fastest plan that fits.
"""
from __future__ import annotations

import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from .backprop import Plan, decode_with_plan, generate_with_plan, ladder, prepared
from .data import DataSplits, ImageDataset
from .distillers import DISTILLERS
from .ledger import Ledger, fused_attention, on_meta
from .networks import build_network
from .sampler import timesteps

SHARE = 0.9  # of the device's memory that a plan may fill: the rest is the allocator's and the kernels'


@dataclass(frozen=True)
class Forecast:
    """What one iteration is predicted to need under a plan.

    Attributes:
        name: of the plan. plan: the :class:`~ld3m_min.backprop.Plan`.
        peak_bytes: the most that tensors made during an iteration occupy at once. held_bytes: what the generator's forward
            pass leaves for its backward pass. weight_bytes: the prior's parameters, there all the time.
        flops: of one iteration (a multiply-add counts as 2), recomputation included.
        seconds: of one forward and backward pass of the generator, where it was probed; else None.
    """

    name: str
    plan: Plan
    peak_bytes: int
    held_bytes: int
    weight_bytes: int
    flops: int
    seconds: float | None = None

    @property
    def total_bytes(self):
        """Peak with the weights: what has to fit."""
        return self.peak_bytes + self.weight_bytes


def weights_of(prior, plan):
    """Every parameter and buffer that a plan holds: the prior's, and those of its copy in another precision or format."""
    fast = prepared(prior, plan)
    networks = prior.modules + (fast.copies if fast is not prior else [])
    return [t for m in networks for t in (*m.parameters(), *m.buffers())]


def forecast(prior, config, plan, *, device="cpu", name="", matching=True, classes=None):
    """Count one iteration of `config` under `plan` for `device`, without running it.

    Args:
        prior: on any device; not touched. matching: count the distillation loss too, not the generator alone.
        classes: of the data; None takes the prior's.

    Returns:
        A :class:`Forecast`.
    """
    meta, plan = on_meta(prior), replace(plan, compile="off")
    weights = weights_of(meta, plan)
    Z, c, noise = codes(meta, config, "meta", classes)
    with Ledger(weights) as ledger, fused_attention(device):
        images = _generate(meta, config, plan, Z, c, noise)
        held = ledger.now
        if matching:
            _match(config, images.detach().requires_grad_(), len(images) // config.ipc)
        images.backward(torch.zeros_like(images))
    size = sum(t.numel() * t.element_size() for t in weights)
    return Forecast(name, plan, ledger.peak, held, size, ledger.flops)


def codes(prior, config, device, classes=None):
    """Random codes of the size that `config` learns, on `device`: Z and c, which require gradients, and the noise."""
    n, side = config.ipc * (classes or max(1, len(prior.classes))), config.size // prior.factor
    generator = torch.Generator().manual_seed(config.seed)
    Z, noise = (torch.randn((n, prior.latent_channels, side, side), generator=generator).to(device) for _ in range(2))
    c = torch.randn((n, *prior.condition_shape), generator=generator).to(device).requires_grad_() if prior.conditional else None
    return Z.requires_grad_(), c, noise


def _generate(prior, config, plan, Z, c, noise):
    if config.space == "ld3m":
        return generate_with_plan(prior, Z, c, noise, replace(config.sampler, eta=0.0), plan)
    return decode_with_plan(prior, Z, plan)


def _match(config, images, classes):
    """The distillation loss of one iteration, by the distiller itself, on images and real data without content."""
    labels = torch.arange(classes).repeat_interleave(config.batch_real)
    pixels = torch.empty((len(labels), 3, config.size, config.size), dtype=torch.uint8, device="meta")
    split = ImageDataset(pixels, labels, tuple(map(str, range(classes))), "train")
    data = DataSplits("meta", split, split, split, mean=(0.5,) * 3, std=(0.5,) * 3)
    options = {"experts": _NoExperts(config, data)} if config.algorithm == "MTT" else {}
    distiller = DISTILLERS[config.algorithm](config, data, "meta", **options)
    own = torch.arange(classes).repeat_interleave(config.ipc)
    distiller.step(images, own if config.algorithm != "MTT" else own.to("meta"), 0)


class _NoExperts:
    """Trajectories of the right length and no content."""

    def __init__(self, config, data):
        n = config.network
        network = build_network(n.name, classes=len(data.classes), size=data.size, depth=n.depth, width=n.width, norm=n.norm)
        self._size = sum(p.numel() for p in network.parameters())

    def __len__(self):
        return 1

    def check(self, config, data):
        """They fit any configuration."""

    def read(self, which, epochs):
        """(len(epochs), P) on the meta device."""
        return torch.empty((len(epochs), self._size), device="meta")


# -- seconds -------------------------------------------------------------------------------------------------------------


def synchronise(device):
    """Wait for the device, so that a clock can be read."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function, device, repeats=3, *, warm=True):
    """Median seconds of `function()` over `repeats` calls, after one that warms up unless `warm` is False."""
    if warm:
        function()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def probe(prior, config, plan, *, device="cpu", repeats=3, classes=None):
    """Predicted seconds of one forward and backward pass of the generator under `plan`, from passes of few steps.

    The time is a line in the number of steps that are kept and in that of the steps that are recomputed; three short
    passes give it, whatever T is.
    """
    Z, c, noise = codes(prior, config, device, classes)
    total = len(timesteps(config.sampler.steps, prior.train_steps)) if config.space == "ld3m" else 1

    def measured(steps, recomputed):
        short = replace(config, sampler=replace(config.sampler, steps=steps))
        now = replace(plan, steps=recomputed)
        return seconds_of(lambda: _generate(prior, short, now, Z, c, noise).sum().backward(), device, repeats)

    recomputed = total if plan.steps < 0 else min(plan.steps, total)
    if total <= 2:
        return measured(total, plan.steps)
    one = measured(1, 0)
    kept = max(0.0, measured(2, 0) - one)
    redone = max(0.0, measured(2, 1) - one) if recomputed else 0.0
    return one - kept + kept * (total - recomputed) + redone * recomputed


# -- choosing --------------------------------------------------------------------------------------------------------------


def device_bytes(device):
    """Memory of a device: all of a GPU's; of the machine, what is not in use now and what limits leave to this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return max(0, min([psutil.virtual_memory().available, *_process_limits(), *_container_limits()]))


def _process_limits():
    """What RLIMIT_AS and RLIMIT_DATA leave to this process, bytes; nothing where there are no such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    used = psutil.Process().memory_info()
    pairs = ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", used.rss)))
    limits = ((resource.getrlimit(which)[0], taken) for which, taken in pairs)
    return [limit - taken for limit, taken in limits if limit != resource.RLIM_INFINITY]


def _container_limits(proc=Path("/proc/self/cgroup"), root=Path("/sys/fs/cgroup")):
    """What the control groups around this process leave to it, bytes: the process's own group and those above it.

    Pages of files that the kernel could drop are not counted as used.
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = root / "memory" if kinds else root  # version 1 keeps a tree for each kind, version 2 one for all
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        group = base / path.lstrip("/")
        for folder in [base] if base == group else [group, *(p for p in group.parents if p.is_relative_to(base))]:
            with suppress(OSError, ValueError):  # "max" is no number: no limit here
                most = int((folder / limit).read_text(encoding="utf-8"))
                stat = dict(x.split() for x in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
                taken = int((folder / used).read_text(encoding="utf-8")) - int(stat.get("inactive_file", 0))
                if most < 2**60:
                    found.append(most - max(0, taken))
    return found


def forecasts(prior, config, *, device="cpu", matching=True, classes=None):
    """A :class:`Forecast` for each plan of `backprop.ladder`, fastest first, in the precision and format of `config.plan`;
    made one by one, as they are asked for."""
    for name, plan in ladder(config.sampler.steps).items():
        yield forecast(prior, config, replace(plan, **config.plan.engine), device=device, name=name, matching=matching,
                       classes=classes)


def choose(prior, config, *, device="cpu", available=None, below=None, classes=None):
    """The :class:`Forecast` of the fastest plan that fits.

    Args:
        available: bytes; None takes the device's memory.
        below: a forecast that proved wrong: only plans that need less than it are looked at.

    Raises:
        MemoryError: none fits; names the least that is needed.
    """
    available = device_bytes(device) if available is None else available
    least = below
    for row in forecasts(prior, config, device=device, classes=classes):
        if below is not None and row.total_bytes >= below.total_bytes:
            continue
        if row.total_bytes <= SHARE * available:
            return row
        least = row if least is None or row.total_bytes < least.total_bytes else least
    raise MemoryError(
        f"no plan fits in {available / 2**30:.1f} GiB: {least.name!r} needs {least.total_bytes / 2**30:.1f} GiB and none less; "
        f"lower ipc = {config.ipc}, size = {config.size} or batch_real = {config.batch_real}, or take precision bfloat16"
    )


def out_of_memory(error):
    """Whether an exception says that the device has no more memory: CUDA's own class, or the CPU allocator's message."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


class Descent:
    """The plan a run is on, and the one step down that it may take when memory runs out.

    Args:
        config: `config.plan` with `auto` is replaced by what :func:`choose` finds. classes: of the data.
    """

    def __init__(self, prior, config, *, device="cpu", classes=None):
        self._options = {"device": device, "classes": classes}
        self._prior, self._config, self.taken = prior, config, False
        self.plan = choose(prior, config, **self._options).plan if config.plan.auto else config.plan

    def step_down(self, error):
        """The next plan after an out-of-memory `error`.

        Raises:
            MemoryError: it is the second one, or nothing needs less; says what was predicted and what to change.
        """
        failed = forecast(self._prior, self._config, self.plan, name="the plan", **self._options)
        if self.taken:
            raise MemoryError(
                f"out of memory again, under a plan that was predicted to need {failed.total_bytes / 2**30:.2f} GiB ({error}); "
                f"free the device of other work, or lower ipc = {self._config.ipc}, size = {self._config.size} or batch_real = "
                f"{self._config.batch_real}, or take precision bfloat16; what was saved is whole"
            )
        self.taken = True
        row = choose(self._prior, self._config, below=failed, **self._options)
        self.plan = row.plan
        warnings.warn(f"out of memory: from here on the plan is {row.name!r}, which is predicted to need "
                      f"{row.total_bytes / 2**30:.2f} GiB instead of {failed.total_bytes / 2**30:.2f}", stacklevel=3)
        return self.plan

"""Versions, processor, cores, memory, GPUs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path

from ld3m_min import __version__
from ld3m_min.doctor.check import Check, gib

NEEDED = {  # package: module
    "torch": "torch",
    "diffusers": "diffusers",
    "filelock": "filelock",
    "huggingface_hub": "huggingface_hub",
    "jaxtyping": "jaxtyping",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pillow": "PIL",
    "psutil": "psutil",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "tqdm": "tqdm",
    "tyro": "tyro",
}
OPTIONAL = {  # package: what it is for, and the extra that brings it
    "pandas": "tables (experiments)",
    "pyarrow": "export as Parquet (parquet)",
    "transformers": "priors that are told classes in words (text)",
}
LITTLE = 2 * 2**30  # bytes of memory in which the digits' presets have no room to spare
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")  # as Linux names them


def versions() -> list[Check]:
    """What is installed: what is needed, each by itself, and what may be there."""
    found, checks = [f"ld3m_min {__version__}", f"Python {platform.python_version()}"], []
    for package, module in NEEDED.items():
        try:
            import_module(module)
            found.append(f"{package} {_version(package)}")
        except Exception as error:  # a broken library fails to load in ways of its own
            said = (str(error).splitlines() or [""])[0]
            todo = f"pip install --force-reinstall {package}"
            says = f"can't be imported ({type(error).__name__}: {said})"
            checks.append(Check(package, says, "broken", todo))
    there = [p for p in OPTIONAL if _version(p)]
    absent = [f"{p} for {use}" for p, use in OPTIONAL.items() if p not in there]
    extras = ", ".join(f"{p} {_version(p)}" for p in there) or "none"
    missing = f"; not installed, and not needed: {', '.join(absent)}" if absent else ""
    return [
        Check("versions", ", ".join(found)),
        *checks,
        Check("extras", extras + missing),
        Check("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
    ]


def _version(package: str) -> str:
    """The version of an installed package; "" where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Its name, and the instructions that PyTorch uses.

    Args:
        cpuinfo: where Linux says what there is.
    """
    import torch

    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    except OSError:  # not Linux
        pass
    has = [f for f in FEATURES if f in flags]
    used = torch.backends.cpu.get_cpu_capability()
    says = f"{name}; PyTorch uses {used}" + (f"; has {', '.join(has)}" if has else "")
    if used == "DEFAULT" and "avx2" in flags:
        return Check("processor", says, "advice", "unset ATEN_CPU_CAPABILITY: it slows PyTorch")
    return Check("processor", says)


def cores(environ: Mapping[str, str] = os.environ, quota: float | None = None) -> Check:
    """How many there are for this process, and how many threads PyTorch takes.

    Args:
        environ: the variables of the environment.
        quota: processors' time that a container allows; None asks it.
    """
    import torch

    allowed = _affinity()
    quota = _quota() if quota is None else quota
    usable = max(1, min(allowed, int(quota) if quota else allowed))
    threads, asked = torch.get_num_threads(), environ.get("OMP_NUM_THREADS")
    limit = f", a container's limit of {quota:g}" if quota else ""
    says = (
        f"{os.cpu_count()} cores, {allowed} for this process{limit}; PyTorch takes {threads} "
        f"threads (OMP_NUM_THREADS {asked or 'is not set'})"
    )
    if threads > usable:
        return Check("threads", says, "advice", f"set OMP_NUM_THREADS={usable}: threads wait else")
    return Check("threads", says)


def _affinity() -> int:
    """Cores that this process may run on."""
    ask = getattr(os, "sched_getaffinity", None)  # not on a Mac, nor on Windows
    return len(ask(0)) if ask else os.cpu_count() or 1


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Processors' time that a container allows, in processors; 0 for no limit."""
    try:
        most, period = (root / "cpu.max").read_text(encoding="utf-8").split()
        return 0.0 if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        pass
    try:
        most = (root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="utf-8")
        period = (root / "cpu" / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return max(0.0, int(most) / int(period))
    except (OSError, ValueError):
        return 0.0


def memory() -> Check:
    """What there is, and what limits leave of it to this process."""
    import psutil

    from ld3m_min.io.memory import memory_limits

    whole = psutil.virtual_memory()
    limits = memory_limits()
    left = max(0, min([whole.available, *limits.values()]))
    said = [f"{gib(max(0, n))} are left by the {name}" for name, n in limits.items()]
    says = f"{gib(whole.total)}, {gib(whole.available)} of it free" + "".join(
        f", {x}" for x in said
    )
    says += f"; a run may take {gib(left)}"
    if left < LITTLE:
        todo = "close other programs, or raise the limit; `plan` says what a run needs"
        return Check("memory", says, "advice", todo)
    return Check("memory", says)


def low_precision() -> Check:
    """Whether bfloat16 is faster than float32 on this processor."""
    from ld3m_min.planner.backend import low_products_pay

    if low_products_pay():
        return Check("bfloat16", "faster than float32 here: --plan.precision bfloat16 pays")
    return Check("bfloat16", "not faster than float32 here; float32 is the default")


def gpus() -> Check:
    """CUDA's and Apple's."""
    import torch

    if torch.cuda.is_available():
        names = [
            f"cuda:{i} {torch.cuda.get_device_name(i)}, "
            f"{gib(torch.cuda.get_device_properties(i).total_memory)}"
            for i in range(torch.cuda.device_count())
        ]
        return Check("GPU", "; ".join(names))
    if torch.backends.mps.is_available():
        return Check("GPU", "an Apple GPU: --device mps")
    if torch.backends.cuda.is_built():
        return Check("GPU", "none that PyTorch can use: it was built for CUDA, and finds no driver")
    return Check("GPU", "none; this PyTorch is for CPUs, and all presets named cpu run on one")

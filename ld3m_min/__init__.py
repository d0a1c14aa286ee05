"""LD3M: latent dataset distillation with diffusion models (Moser et al., arXiv 2403.03881)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a type checker sees of the names that `__getattr__` loads
    from ld3m_min.augment import DSA as DSA
    from ld3m_min.config import DistilConfig as DistilConfig
    from ld3m_min.config import EvalConfig as EvalConfig
    from ld3m_min.coresets import select as select
    from ld3m_min.data import load_data as load_data
    from ld3m_min.evaluate import evaluate as evaluate
    from ld3m_min.networks import build_network as build_network
    from ld3m_min.presets import eval_preset as eval_preset
    from ld3m_min.presets import preset as preset
    from ld3m_min.prior import LatentDiffusionPrior as LatentDiffusionPrior
    from ld3m_min.residual import Residual as Residual
    from ld3m_min.run import distil as distil
    from ld3m_min.sampler import SamplerConfig as SamplerConfig
    from ld3m_min.sampler import generate as generate
    from ld3m_min.sampler import generate_latents as generate_latents
    from ld3m_min.sampler import timesteps as timesteps
    from ld3m_min.synthetic import SyntheticSet as SyntheticSet

__version__ = "0.1.0"

_HOME = {
    "LatentDiffusionPrior": "prior",
    "SamplerConfig": "sampler",
    "Residual": "sampler",
    "generate": "sampler",
    "generate_latents": "sampler",
    "timesteps": "sampler",
    "DSA": "augment",
    "build_network": "networks",
    "load_data": "data",
    "preset": "presets",
    "eval_preset": "presets",
    "DistilConfig": "config",
    "EvalConfig": "config",
    "distil": "run",
    "SyntheticSet": "synthetic",
    "select": "coresets",
}
__all__ = ["__version__", *_HOME, "evaluate"]


def __getattr__(name: str) -> object:  # loaded at first use: `import ld3m_min` costs nothing
    if name == "evaluate":  # a package of the same name, which can be called like its function
        return import_module(".evaluate", __name__)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

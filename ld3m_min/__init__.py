"""LD3M: latent dataset distillation with diffusion models, small and tested (Moser et al., arXiv 2403.03881)."""
from importlib import import_module

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
    "preset": "config",
    "eval_preset": "config",
    "DistilConfig": "config",
    "EvalConfig": "config",
    "distil": "run",
    "SyntheticSet": "spaces",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):  # loaded at first use: `import ld3m_min` costs nothing
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How good a synthetic set is: networks trained on it, tested on real images (section 4.1)."""

from ld3m_min.evaluate.cross_architecture import EvalResult, evaluate

__all__ = ["EvalResult", "evaluate"]

"""How good a synthetic set is: networks trained on it, tested on real images (section 4.1)."""

import sys
from types import ModuleType
from typing import Any

from ld3m_min.evaluate.cross_architecture import EvalResult, evaluate

__all__ = ["EvalResult", "evaluate"]


class _CallablePackage(ModuleType):
    """`from ld3m_min import evaluate` gives this package, not its function; so it can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> EvalResult:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage

"""What `pytest --nbval notebooks/` compares, and what it lets vary between machines."""

import math
import os
import re
import tempfile

# the kernels inherit these: the small preset, no network, no progress bars, this environment's
# kernel
os.environ.setdefault("LD3M_PRESET", "smoke")
os.environ.setdefault("LD3M_OUT", tempfile.mkdtemp(prefix="ld3m-nbval-"))
os.environ.pop(
    "LD3M_DATA", None
)  # the committed outputs are of what comes with the project
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")

SKIP = (
    "stderr",  # warnings, progress bars
    "text/html",  # a DataFrame's text/plain is still compared; HTML differs by pandas version
    "image/svg+xml",
    "application/vnd.jupyter.widget-state+json",
)
SANITIZE = {
    r"0x[0-9a-f]{6,}": "0xADDR",
    r"\bcuda(:\d+)?\b": "DEVICE",
    r"\bcpu\b": "DEVICE",
    r"\d+(\.\d+)? ?(s|ms|it/s)\b": "TIME",
}
RTOL, ATOL = 2e-3, 1e-6
_FLOAT = re.compile(
    r"[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)"
)


class Approx(str):
    """Text equal to another when the words are equal and the floats are close."""

    def _key(self):
        """The text with its floats taken out, and the floats."""
        return " ".join(_FLOAT.sub("#", self).split()), [
            float(x) for x in _FLOAT.findall(self)
        ]

    def __eq__(self, other):
        if not isinstance(other, str):
            return NotImplemented
        (a, x), (b, y) = Approx._key(self), Approx._key(other)
        return a == b and all(
            math.isclose(u, v, rel_tol=RTOL, abs_tol=ATOL)
            for u, v in zip(x, y, strict=True)
        )

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


def pytest_collectstart(collector):
    """Leave out the outputs that no two machines share, and mask addresses, devices and times."""
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += SKIP
        collector.sanitize_patterns.update(SANITIZE)


def pytest_configure(config):
    """Use the environment that runs pytest, whatever a user's own "python3" kernelspec says.

    Five minutes a cell.
    """
    if getattr(config.option, "nbval_kernel_name", None) is None and hasattr(
        config.option, "nbval_current_env"
    ):
        config.option.nbval_current_env = True
    if getattr(config.option, "nbval_cell_timeout", None) == 2000:
        config.option.nbval_cell_timeout = 300


def pytest_itemcollected(item):
    """Compare text by words and by floats within the tolerance."""
    if type(item).__name__ == "IPyNbCell":
        plain = item.sanitize
        item.sanitize = lambda s: Approx(plain(s)) if isinstance(s, str) else s

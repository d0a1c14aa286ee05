"""Packages that only some of the work needs: they come with an extra of the installation."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ld3m_min.errors import InputError

EXTRAS = {  # package: extra that brings it
    "pandas": "experiments",
    "pyarrow": "parquet",
    "transformers": "text",
}


def needed(module: str, what: str) -> ModuleType:
    """A module of a package that an extra brings.

    Args:
        module: its dotted name.
        what: that needs it, as a sentence begins.

    Returns:
        The module.

    Raises:
        InputError: the package isn't installed; says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        if package not in EXTRAS:  # a damaged installation is no missing extra
            raise
        raise InputError(
            f"{what} needs the package {package}, which isn't installed; "
            f"pip install 'ld3m-min[{EXTRAS[package]}]'"
        ) from None

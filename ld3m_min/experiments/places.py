"""Where records, runs and priors lie: in a checkout, or where an installed package is used."""

from __future__ import annotations

from pathlib import Path

from ld3m_min.prior.place import has_index
from ld3m_min.prior.weights import shipped

PROJECT = Path(__file__).resolve().parents[2]  # the checkout; an installed package has none
HOME = PROJECT if (PROJECT / "book" / "_data").is_dir() else Path()
RECORDS, RUNS = HOME / "book" / "_data" / "records", Path("runs")


def prior_folder(name: str, seed: int = 0) -> Path:
    """Where `train-prior` and `fine-tune` work on a preset, below the working directory.

    Args:
        name: of the preset.
        seed: of the training.

    Example:
        >>> from ld3m_min.experiments.grids import prior_folder
        >>> prior_folder("digits", seed=3).as_posix()
        'runs/prior-digits-seed3'
    """
    return RUNS / (f"prior-{name}" + (f"-seed{seed}" if seed else ""))


def prior_path(name: str) -> str | Path:
    """What :func:`~ld3m_min.prior.loading.load_prior` is to be given for a configuration's prior.

    A prior that is shipped comes first, then one that `train-prior` or `fine-tune` made here, then
    one that the project keeps beside its records. Any other name stays as it is.

    Args:
        name: as the configuration has it.

    Example:
        >>> from ld3m_min.experiments.grids import prior_path
        >>> prior_path("digits"), prior_path("org/elsewhere")
        ('digits', 'org/elsewhere')
    """
    if "/" in name or shipped(name):
        return name
    places = (prior_folder(name) / "model", RECORDS.parent / "priors" / name)
    return next((place for place in places if has_index(place)), name)


def has_prior(prior: str) -> bool:
    """Whether a prior is shipped, or was made here.

    Args:
        prior: name of a preset.

    Example:
        >>> from ld3m_min.experiments.grids import has_prior
        >>> [name for name in ("digits", "style-digits", "none") if has_prior(name)]
        ['digits', 'style-digits']
    """
    found = prior_path(prior)
    return shipped(found) is not None if isinstance(found, str) else has_index(found)

"""The wheel is whole, holds what may be passed on, and works outside of the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("ld3m_min", "pyproject.toml", "README.md", "LICENSE", "LICENSE-text")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        ignore = shutil.ignore_patterns("__pycache__")
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(
            ROOT / name, folder / name, **({"ignore": ignore} if (ROOT / name).is_dir() else {})
        )
    words = [
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--disable-pip-version-check",
        "-w",
        "dist",
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=folder, check=True, timeout=300)
    return next((folder / "dist").glob("*.whl"))


def test_it_holds_every_module_the_digits_prior_and_the_licences(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f.relative_to(ROOT).as_posix() for f in (ROOT / "ld3m_min").rglob("*.py")}
    assert modules <= names
    weights = {n for n in names if n.endswith(".safetensors")}
    priors = {n.split("/")[-3] for n in weights}
    assert "digits" in priors and priors <= {"digits", "letters", "style-digits"}, weights
    assert {Path(n).name for n in names if "dist-info/licenses" in n} == {"LICENSE", "LICENSE-text"}
    assert not [n for n in names if n.startswith(("tests", "book", "benchmarks", "tools"))]
    assert wheel.stat().st_size < 12_000_000


def test_it_distils_outside_of_the_repository(wheel, tmp_path):
    """Installed in a folder of its own, from a working directory of its own, without a home."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    words = [
        "install",
        str(wheel),
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(site),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, timeout=300)
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in ("LD3M_DATA", "LD3M_CACHE", "XDG_CACHE_HOME")
    }
    environment = clean | {
        "PYTHONPATH": str(site),
        "HOME": str(tmp_path / "none"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    code = (
        "import ld3m_min, ld3m_min.io.environment as r; print(ld3m_min.__file__); "
        "print(r.environment()['commit'] == '')"
    )
    options = {
        "cwd": work,
        "env": environment,
        "capture_output": True,
        "text": True,
        "timeout": 300,
    }
    found = subprocess.run([sys.executable, "-c", code], **options)
    assert found.stdout.split() == [str(site / "ld3m_min" / "__init__.py"), "True"], found.stderr
    done = subprocess.run(
        [sys.executable, "-m", "ld3m_min", "distil", "--iterations", "2"], **options
    )
    assert done.returncode == 0, done.stderr
    looked = subprocess.run([sys.executable, "-m", "ld3m_min", "doctor"], **options)
    assert looked.returncode == 0, looked.stdout  # and the priors are what the wheel's record says
    assert "prior digits" in looked.stdout and "as installed" in looked.stdout
    assert (work / "runs" / "distil" / "set" / "set.json").exists() and [
        p.name for p in work.iterdir()
    ] == ["runs"]

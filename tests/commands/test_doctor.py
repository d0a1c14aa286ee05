"""What `doctor` says of this machine and of broken ones, and what it keeps to itself."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from ld3m_min.commands import parsed
from ld3m_min.doctor import Check, examined, files, machine
from ld3m_min.doctor.check import private
from ld3m_min.errors import InputError
from ld3m_min.prior.weights import SHIPPED

NAMES = (
    *("versions", "extras", "system", "processor", "threads", "memory", "bfloat16", "GPU"),
    *("prior digits", "hub", "cache of images", "cache of the hub", "temporary files", "runs"),
    "encoding",
)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LD3M_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_every_line_ends_in_fine_or_in_what_to_do(capsys):
    parsed(["doctor"])()
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in NAMES)
    assert all(len(line.rpartition("  -> ")[2]) >= 4 for line in lines)
    assert any("HF_HUB_OFFLINE=1" in line for line in lines)


def test_the_report_for_a_bug_names_nobody(capsys, monkeypatch, tmp_path):
    home = tmp_path / "home" / "jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("USER", "jane.doe")
    monkeypatch.setenv("LOGNAME", "jane.doe")
    monkeypatch.setenv("LD3M_CACHE", str(home / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "jane.doe").mkdir()
    monkeypatch.chdir(tmp_path / "jane.doe")
    parsed(["doctor", "--json"])()
    text = capsys.readouterr().out
    checks = {c["name"]: c for c in json.loads(text)["checks"]}
    assert "~/cache" in checks["cache of images"]["says"] and "USER" in checks["runs"]["says"]
    assert "jane.doe" not in text and "hf_secret" not in text
    assert {c["status"] for c in checks.values()} <= {"fine", "advice"}
    assert private("/home/x/y") == "/home/x/y"


def test_a_broken_library_hides_no_other_line(monkeypatch, capsys):
    monkeypatch.setitem(machine.NEEDED, "nonsense", "no_such_module")

    def fails():
        raise RuntimeError("illegal instruction\nmore")

    report = examined((machine.versions, fails, files.encoding))
    assert report.broken == ("nonsense", "fails") and report.checks[-1].name == "encoding"
    assert "pip install --force-reinstall nonsense" in "\n".join(report.lines)
    monkeypatch.setattr("ld3m_min.commands.doctor.examined", lambda: report)
    with pytest.raises(InputError, match="broken: nonsense, fails"):
        parsed(["doctor"])()
    assert "illegal instruction" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["cut", "gone", "changed"])
def test_a_damaged_prior_is_found(how, tmp_path, monkeypatch):
    shutil.copytree(SHIPPED / "digits", tmp_path / "shipped" / "digits")
    (whole,) = files.priors(tmp_path / "shipped")
    assert whole.status == "fine"
    file = tmp_path / "shipped" / "digits" / "vae" / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    if how == "gone":
        shutil.rmtree(tmp_path / "shipped" / "digits")
    else:
        file.write_bytes(data[:-100] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    if how == "changed":  # which the checksum of the installation tells alone
        monkeypatch.setattr(files, "_installed", lambda: {file.resolve(): "0" * 43})
    (found,) = files.priors(tmp_path / "shipped")
    assert found.status == "broken" and found.todo.startswith("install ld3m-min anew")


def test_a_hub_that_does_not_answer_is_advice_and_soon(monkeypatch):
    def never(*args, **kwargs):
        time.sleep(5)

    monkeypatch.setattr(files.urllib.request, "urlopen", never)
    began = time.monotonic()
    found = files.hub({"HF_HUB_OFFLINE": "0"}, seconds=0.1)
    assert found.status == "advice" and "no answer" in found.says
    assert time.monotonic() - began < 4

    def refused(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(files.urllib.request, "urlopen", refused)
    assert "ConnectionRefusedError" in files.hub({}).says


@pytest.mark.parametrize(
    "quota, threads, status", [(0, 1, "fine"), (1.5, 1, "fine"), (1, 2, "advice")]
)
def test_more_threads_than_cores_are_advised_against(quota, threads, status, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(machine, "_affinity", lambda: 4)
    found = machine.cores({"OMP_NUM_THREADS": str(threads)}, quota)
    assert found.status == status and (status == "fine" or "OMP_NUM_THREADS=1" in found.todo)


@pytest.mark.skipif(os.name == "nt", reason="no such limits there")
def test_a_limit_of_the_process_is_named(monkeypatch):
    monkeypatch.setattr("ld3m_min.io.memory.memory_limits", lambda: {"container": 2**30})
    found = machine.memory()
    assert "1.0 GiB are left by the container" in found.says and found.status == "advice"


def test_a_folder_that_cannot_be_written_to(monkeypatch, tmp_path):
    def full(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    found = files._folder("runs", tmp_path / "runs", "--out")
    assert found == Check(
        "runs",
        f"{private(tmp_path / 'runs')} can't be written to (Permission denied)",
        "advice",
        "name another folder by --out",
    )


def test_processors_are_read_as_linux_tells_them(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: A CPU\nflags\t\t: sse avx2 amx_bf16\n")
    assert "A CPU" in (said := machine.processor(tmp_path / "cpuinfo").says)
    assert "has avx2, amx_bf16" in said
    assert machine.processor(tmp_path / "none").status == "fine"
    assert machine._quota(tmp_path) == 0.0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine._quota(Path(tmp_path)) == 1.5

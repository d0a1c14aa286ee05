"""Sweeps: the jobs that are missing, what they will cost, and Snakemake making them."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ld3m_min.errors import InputError
from ld3m_min.experiments import costs, grids, operations, sweep
from ld3m_min.experts.buffer import describe_experts
from ld3m_min.io.files import write_json
from ld3m_min.presets import preset
from ld3m_min.prior.presets import PRIOR_PRESETS
from ld3m_min.prior.training_log import TrainingLog

ROOT = Path(__file__).parents[2]
TWO = ("digits-smoke-random-none-ipc1", "digits-smoke-pixel-DM-ipc1")

snakemake = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None,
    reason="snakemake is not installed: pip install -c constraints.txt -e .[sweep]",
)


def stand(folder, cells):
    """Records of cells, empty: that they are there is all that a sweep asks."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        (folder / f"{cell.name}.json").write_text("{}")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A working directory without priors."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- the jobs --------------------------------------------------------------------------------------


def test_jobs_are_the_missing_cells_and_what_they_need_stands_before_them(nowhere):
    """Of the whole paper, with a third of the records there."""
    cells = [cell for name in grids.MEASURED for cell in grids.grid(name)]
    stand(nowhere / "records", cells[::3])
    found = sweep.sweep("paper", nowhere / "records")
    assert found.cells == len(cells) and found.grids == grids.MEASURED
    made = [job.name for job in found.jobs if job.kind == "cell"]
    missing = {cell.name for i, cell in enumerate(cells) if i % 3}
    assert len(made) == len(missing) and set(made) == missing
    seen = set()
    for job in found.jobs:
        assert seen.issuperset(job.needs), f"{job.name} stands before what it needs"
        seen.add(job.name)
    assert len(seen) == len(found.jobs)
    for job in found.jobs:
        if job.kind != "cell":
            continue
        kinds = [next(j.kind for j in found.jobs if j.name == name) for name in job.needs]
        assert kinds.count("experts") == (job.cell.algorithm == "MTT")
        needs_prior = grids.SPACES[job.cell.system.space].needs_prior
        assert not kinds.count("prior") or needs_prior
        if needs_prior and not grids.has_prior(job.cell.config().prior):
            assert kinds.count("prior") >= 1
    # a prior of a preset that is fine-tuned waits for the one that it starts from
    with_start = sweep.sweep("photos*", nowhere / "records")
    assert all(j.output.name == "model_index.json" for j in with_start.jobs if j.kind == "prior")


def test_stages_hold_every_job_once_in_the_order_in_which_they_are_wanted(nowhere):
    found = sweep.sweep("evidence", nowhere / "records")
    names = [job.name for stage in found.stages for job in stage.jobs]
    assert sorted(names) == sorted(job.name for job in found.jobs)
    # the primary comparisons first, seed by seed; experts before the stage that needs them
    primary = [sorted({job.cell.seed for job in s.jobs}) for s in found.stages[:8]]
    assert primary == [[seed] for seed in range(8)]
    assert found.stages[8].kind == "experts" and found.stages[9].jobs[0].cell.seed == 0
    for stage in found.stages:
        assert re.fullmatch(r"[a-z0-9_]+", stage.name)
        assert all(stage.output.format(job=job.name) == str(job.output) for job in stage.jobs)
        assert all(re.fullmatch(stage.pattern, job.name) for job in stage.jobs)
        assert len({(job.kind, job.on_gpu) for job in stage.jobs}) == 1


def test_a_prior_that_is_there_is_no_job(nowhere):
    records = nowhere / "records"
    wanted = [j for j in sweep.sweep("imagenette", records).jobs if j.kind == "prior"]
    assert [j.name for j in wanted] == ["prior-imagenette-128"]
    assert wanted[0].command.endswith(f"--records {records}") and wanted[0].on_gpu
    wanted[0].output.parent.mkdir(parents=True)
    wanted[0].output.write_text("{}")
    left = sweep.sweep("imagenette", records).jobs
    assert not [j for j in left if j.kind == "prior"]
    assert all(not j.needs or j.needs[0].startswith("experts") for j in left)


def test_nothing_is_left_where_all_records_are(nowhere):
    stand(nowhere / "records", grids.grid("smoke"))
    assert not sweep.sweep("smoke", nowhere / "records").jobs


def test_the_command_of_the_experts_makes_those_that_the_cells_ask_for(digits, nowhere):
    """Shared by content: a cell finds them where the command puts them."""
    jobs = {job.name: job for job in sweep.sweep("evidence", nowhere / "records").jobs}
    checked = set()
    for job in jobs.values():
        if job.kind != "cell" or job.cell.algorithm != "MTT" or job.cell.seed > 1:
            continue
        (made,) = (jobs[name] for name in job.needs if jobs[name].kind == "experts")
        words = made.command.split()
        assert words[:5] == ["python", "-m", "ld3m_min", "experts", job.cell.preset]
        given = dict(zip(words[5::2], words[6::2], strict=True))
        config = preset(
            job.cell.preset,
            algorithm="MTT",
            dataset=given["--dataset"],
            size=int(given["--size"]),
            seed=int(given["--seed"]),
        )
        assert describe_experts(config, digits) == describe_experts(job.cell.config(), digits)
        checked.add(made.name)
    assert len(checked) == 2


def test_grids_by_name_pattern_and_all():
    assert sweep.chosen("evidence-steps digits") == ("digits", "evidence-steps")
    assert set(sweep.chosen(["evidence*"])) == {g for g in grids.GRIDS if g.startswith("evidence")}
    assert sweep.chosen("paper") == grids.MEASURED
    assert sweep.chosen("photos*") == tuple(g for g in grids.MEASURED if g.startswith("photos"))
    assert sweep.chosen("photos-smoke pilot") == ("pilot", "photos-smoke")  # only by their names
    with pytest.raises(ValueError, match="unknown grid 'evidences'"):
        sweep.chosen("digits evidences")


# -- the forecast ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known():
    return costs.Costs(grids.RECORDS)


def test_every_grid_that_is_measured_has_a_forecast(known):
    """The dear ones, whose cells have to be counted, by one grid of each kind."""
    counted = ("evidence-differences", "photos-priors", "imagenette-256")
    for grid in grids.MEASURED:
        asked = sweep.sweep(grid)
        if asked.jobs and grid not in counted:
            continue
        found = costs.rows(asked, known)[-1]
        assert found.jobs == len(asked.jobs) and (found.hours > 0) == bool(asked.jobs), grid


def test_a_prior_that_has_no_preset_is_no_bug(known):
    with pytest.raises(InputError, match="'imagenette-64-smoke-1k' has no preset"):
        costs.rows(sweep.sweep("photos-priors-smoke"), known)


def test_what_is_counted_agrees_with_the_committed_records(known):
    """Each part within a factor of three of the seconds, and memory within a third."""
    checked = 0
    for same in known._like.values():
        record, cell = same[0], grids.Cell(**same[0]["cell"])
        if cell.preset != "cpu" or cell.system.how != "learned" or cell.ipc != 1:
            continue
        learned, judged = operations.distillation(cell), operations.evaluation(cell)
        for part, found in (("distil", learned), ("evaluate", judged)):
            ratio = found.flops / known.speeds[part] / record["seconds"][part]
            assert 1 / 3 < ratio < 3, f"{cell.name}: {part} {ratio:.2f}"
        memory = costs.PROCESS + max(learned.peak, judged.peak)
        assert 3 / 4 < memory / record["peak_memory_bytes"] < 4 / 3, cell.name
        checked += 1
    assert checked >= 9


def test_a_record_of_the_same_kind_is_believed_before_anything_is_counted(known):
    cell = grids.grid("digits")[1]
    took = known._like[costs._kind(cell)][0]["seconds"]
    job = sweep.Job("x", "cell", "s", "python", (), Path("x"), "digits", replace(cell, seed=7))
    found = known.of(job)
    assert found.measured and found.seconds == took["distil"] + took["evaluate"]


def test_operations_grow_as_they_must():
    def flops(**changes):
        cell = grids.Cell("digits", "evidence", "ld3m-paper", "DM", 1)
        return operations.distillation(replace(cell, **changes)).flops

    steps = [flops(variant=v) for v in ("T5", "", "T20", "T40")]
    slope = (steps[1] - steps[0]) / 5
    assert steps[2] - steps[1] == pytest.approx(10 * slope)
    assert steps[3] - steps[1] == pytest.approx(30 * slope)
    assert flops(space="pixel") < flops(space="autoencoder") < steps[1] < flops(ipc=10)
    assert flops(space="random", algorithm="none") == 0
    assert flops(space="pixel") < flops(space="glad-w")


def test_trajectories_on_the_disk_are_as_long_as_said(nowhere):
    cell = grids.Cell("digits", "evidence", "pixel", "MTT", 1)
    m, parameters = cell.config().mtt, operations._step(cell.config().network, 32, 1).numbers
    rows = m.max_start_epoch + m.expert_epochs + 1
    assert operations.experts(cell).numbers == m.experts * rows * parameters


def test_a_prior_has_timed_those_of_its_size(tmp_path):
    """50,000 steps of a denoiser in an hour, the autoencoder's time apart: 6,500 take an eighth."""
    name, records = "imagenette-64", tmp_path / "records"
    records.mkdir()
    (tmp_path / "priors" / f"{name}-autoencoder").mkdir(parents=True)
    TrainingLog(10_000, 0, 500.0).save(tmp_path / "priors" / f"{name}-autoencoder")
    write_json(records / f"prior-{name}-seed0.json", {"schema": 1, "seconds": 4100})
    found = costs.Costs(records)._prior(f"{name}-6k", False).seconds
    assert found == pytest.approx(3600 * 6500 / PRIOR_PRESETS[name].unet_steps)


def test_the_forecast_adds_up_and_says_what_it_rests_on(nowhere, known):
    found = sweep.sweep("digits evidence-steps imagenette-ablation", nowhere / "records")
    rows = costs.rows(found, known)
    total = rows.pop()
    assert total.jobs == sum(r.jobs for r in rows) == len(found.jobs)
    assert total.hours == pytest.approx(sum(r.hours for r in rows)) and total.hours > 0
    assert total.disk == sum(r.disk for r in rows) and total.longest <= total.hours
    by_name = {r.what: r for r in rows}
    assert by_name["digits"].measured == by_name["digits"].jobs == len(grids.grid("digits"))
    unknown = costs.Costs(folder=nowhere / "records", tflops=5)
    assert not any(row.measured for row in costs.rows(found, unknown))
    text = costs.forecast_text(found, known)
    assert "0 of" in text and f"{total.measured} jobs as in records" in text
    assert "5 TFLOP/s are assumed" in text
    faster = costs.rows(found, costs.Costs(tflops=50))
    slow = next(r for r in rows if r.what == "imagenette-ablation")
    fast = next(r for r in faster if r.what == "imagenette-ablation")
    assert slow.hours == pytest.approx(10 * fast.hours)


# -- Snakemake -------------------------------------------------------------------------------------


def run(folder, *words, grid="smoke", **options):
    """Snakemake on the project's Snakefile, in a folder of its own."""
    command = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "-d", folder]
    command += ["--config", f"grids={grid}", f"records={folder / 'records'}", *words]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        **options,
    )


def done(process, timeout=600):
    """Its output; it must have ended well."""
    text = process.communicate(timeout=timeout)[0]
    assert process.returncode == 0, text
    return text


def listed(text):
    """Names of the jobs of a dry run, in its order."""
    return re.findall(r"^    wildcards: job=(\S+)$", text, re.MULTILINE)


@snakemake
def test_a_dry_run_lists_the_missing_cells_and_priors_before_them(tmp_path):
    cells = grids.grid("photos-smoke")
    stand(tmp_path / "records", cells[3:])
    text = done(run(tmp_path, "-n", grid="photos-smoke"))
    missing = [c.name for c in cells[:3]]
    wanted = [j.name for j in sweep_in(tmp_path, "photos-smoke").jobs]
    assert sorted(listed(text)) == sorted(wanted) and set(missing) < set(wanted)
    assert cells[2].space == "initial"  # the first that needs the prior
    place = listed(text).index
    assert place("prior-imagenette-64-smoke") < place(cells[2].name)
    assert f"{len(cells) - 3} of {len(cells)} records are there" in text
    assert re.search(rf"^all +{len(wanted)} +\d", text, re.MULTILINE)
    assert re.search(r"mem_mb=[1-9]", text) and re.search(r"runtime=[1-9]", text)
    assert not (tmp_path / "runs").exists()


def sweep_in(folder, grid):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return sweep.sweep(grid, folder / "records")


@snakemake
def test_a_record_that_stands_is_never_made_again(tmp_path):
    """Not for times of files, lost intermediate files, another profile, or force."""
    stand(tmp_path / "records", grids.grid("smoke"))
    files = sorted((tmp_path / "records").iterdir())
    for age, file in enumerate(files):
        os.utime(file, (1e9 + age, 1e9 + age))  # older than the code, and than anything else
    before = [(f.name, f.stat().st_mtime_ns, f.read_bytes()) for f in files]
    for words in ((), ("--workflow-profile", "none", "-c1", "--forceall"), ("-R", "all")):
        assert not listed(done(run(tmp_path, *words)))
    after = sorted((tmp_path / "records").iterdir())
    assert before == [(f.name, f.stat().st_mtime_ns, f.read_bytes()) for f in after]


@snakemake
def test_two_workers_make_two_cells_and_a_killed_run_goes_on(tmp_path):
    """SIGKILL to all of its processes, after a first checkpoint; the same command goes on."""
    records, others = tmp_path / "records", [c for c in grids.grid("smoke") if c.name not in TWO]
    stand(records, others)
    running = run(tmp_path, "--cores", "2")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "runs").glob(f"{TWO[1]}/**/*.json")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    missing = [name for name in TWO if not (records / f"{name}.json").exists()]
    kept = [(f, f.stat().st_mtime_ns) for f in records.glob("*.json")]
    assert missing, "the kill came too late to show anything"
    text = done(run(tmp_path, "--cores", "2"))
    assert sorted(set(listed(text))) == sorted(missing)
    for name in TWO:
        record = json.loads((records / f"{name}.json").read_text())
        assert record["cell"]["preset"] == "smoke"
        assert record["environment"]["device"] == "CPU, 1 threads"
    assert all(f.stat().st_mtime_ns == time_of for f, time_of in kept)
    assert not listed(done(run(tmp_path, "--cores", "2")))


@snakemake
def test_exit_code_75_goes_on_and_a_mistake_does_not(tmp_path):
    """The shell line of the rules, with a command that asks three times for more time."""
    line = re.search(r'shell: "(.*)"', (ROOT / "Snakefile").read_text())[1]
    count = tmp_path / "count"
    for last, code in ((0, 0), (2, 2)):
        count.write_text("0")
        more = f"n=$(cat {count}); echo $((n+1)) > {count}; [ $n -ge 3 ] || exit 75"
        command = f"bash -c '{more}; exit {last}'"
        text = line.format(params=type("P", (), {"command": command}), log=tmp_path / "log")
        ended = subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=False)
        assert ended.returncode == code and count.read_text().strip() == "4"

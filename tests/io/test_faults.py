"""Disks, folders, processes and numbers that fail.

The earlier state stays whole, and the message says what happened.
"""

import errno
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ld3m_min import run
from ld3m_min.distillers import DISTILLERS
from ld3m_min.distillers.dm import DM
from ld3m_min.errors import InputError
from ld3m_min.io import disk, files, seeds
from ld3m_min.io.checkpoints import Checkpointer
from ld3m_min.io.files import read_json, replace_folder, write_bytes, write_json
from ld3m_min.io.lock import locked
from ld3m_min.io.stop import Interrupted, stop_after
from ld3m_min.learner import Learner, Share
from ld3m_min.presets import preset
from ld3m_min.prior.schedule import ldm_scheduler
from ld3m_min.run import distil
from ld3m_min.sampler import SamplerConfig, generate, generate_latents, timesteps
from ld3m_min.synthetic import SyntheticSet
from tests.faults import damage_checkpoint
from tests.killing import content


def small(space="pixel", algorithm="DM", **changes):
    return preset("smoke", algorithm=algorithm, space=space, **({"iterations": 4} | changes))


def distilled(config, digits, **options):
    return distil(config, data=digits, progress=False, **options)


def at(iteration, action):
    """A callback that acts after one iteration."""
    return lambda p: action() if p.iteration == iteration else None


def steps(out):
    return [p.name for p in sorted((out / "checkpoints").glob("step-*"))]


# -- disks and folders -----------------------------------------------------------------------------


def goes_on_as_if_nothing_had_been(config, digits, out, whole):
    distilled(config, digits, out=out)
    assert content(out) == content(whole)


@pytest.fixture
def whole(digits, tmp_path):
    distilled(small(), digits, out=tmp_path / "whole")
    return tmp_path / "whole"


def test_disk_full_at_any_write(digits, tmp_path, whole, monkeypatch):
    """ENOSPC at each of the first 12 flushes of a file after the second iteration.

    12 of 12 go on bit for bit.
    """
    for n in range(12):
        out, left, plain = tmp_path / f"out-{n}", [n], os.fsync

        def full(handle, left=left, plain=plain):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            plain(handle)

        with pytest.raises(
            OSError, match=r"No space left on device \(free some space\); (earlier|nothing)"
        ):
            distilled(
                small(),
                digits,
                out=out,
                callback=at(1, lambda full=full: monkeypatch.setattr(files.os, "fsync", full)),
            )
        monkeypatch.undo()
        assert Checkpointer(out / "checkpoints", None).load().step >= 1
        assert not list(out.rglob(".tmp-*"))
        goes_on_as_if_nothing_had_been(small(), digits, out, whole)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 3 MiB, where root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if sys.platform != "linux" or os.geteuid() != 0 or not mount:
        pytest.skip("needs root on Linux to mount a small disk")
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run([shutil.which("umount"), place], check=True)


def test_a_real_disk_that_is_full_or_can_only_be_read(digits, small_disk, whole):
    out, filler = small_disk / "run", small_disk / "filler"

    def fill():
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    with pytest.raises(
        OSError,
        match=r"No space left on device \(free some space\); earlier checkpoints are intact",
    ):
        distilled(small(), digits, out=out, callback=at(1, fill))
    assert steps(out) == ["step-00000001"] and not list(out.rglob(".tmp-*"))
    mount = shutil.which("mount")
    subprocess.run([mount, "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(
        OSError, match=r"cannot work in .*run: Read-only file system .*use another folder"
    ):
        distilled(small(), digits, out=out)
    subprocess.run([mount, "-o", "remount,rw", small_disk], check=True)
    filler.unlink()
    goes_on_as_if_nothing_had_been(small(), digits, out, whole)


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_folder_that_vanishes_is_said_and_not_made_anew(digits, tmp_path, whole, how):
    out, kept = tmp_path / "run", tmp_path / "kept"

    def vanish():
        if how == "deleted":
            shutil.rmtree(out)
        else:
            out.rename(kept)
        if how == "replaced":  # as when a disk is unmounted: an empty folder is left
            out.mkdir()

    with pytest.raises(OSError, match=r"has vanished while the run was at work .*Bring it back"):
        distilled(small(), digits, out=out, callback=at(1, vanish))
    assert not (out / "checkpoints").exists()
    if how != "deleted":
        shutil.rmtree(out, ignore_errors=True)
        kept.rename(out)
        assert steps(out) == ["step-00000001"]
    goes_on_as_if_nothing_had_been(small(), digits, out, whole)


def test_a_file_where_the_folder_should_be(digits, tmp_path):
    (tmp_path / "run").write_text("a note")
    with pytest.raises(OSError, match=r"run is no folder, and a run needs one"):
        distilled(small(), digits, out=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a note"


def test_a_relative_folder_stays_where_it_is(digits, tmp_path, whole, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    distilled(small(), digits, out="run", callback=at(1, lambda: os.chdir(tmp_path / "elsewhere")))
    assert content(tmp_path / "run") == content(whole) and not list(
        (tmp_path / "elsewhere").iterdir()
    )


def test_what_a_killed_writer_left_is_swept(digits, tmp_path, whole):
    out = tmp_path / "run"
    for litter in (
        out / f".tmp-{'0' * 32}-set" / "images",
        out / "checkpoints" / f".tmp-{'a' * 32}",
    ):
        litter.mkdir(parents=True)
    mine = out / ".tmp-notes"
    mine.write_text("not ours")
    distilled(small(), digits, out=out)
    assert [p.name for p in out.rglob(".tmp-*")] == [".tmp-notes"]
    mine.unlink()
    assert content(out) == content(whole)


# -- checkpoints -----------------------------------------------------------------------------------


def test_every_region_of_a_checkpoint_flipped_or_cut(tmp_path):
    tally = damage_checkpoint(tmp_path, step=9)
    assert {r.split(",")[0] for r in tally} >= {"length", "header", "data", "manifest"}
    tried, refused = (sum(v[i] for v in tally.values()) for i in range(2))
    # at most a blank at the manifest's end that means nothing
    assert tried > 150 and tried - refused <= 2


def test_the_fall_back_is_said_and_bit_exact(digits, tmp_path, whole):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    file = out / "checkpoints" / "step-00000004" / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.warns(
        UserWarning,
        match=r"going on from step 3:\n  step-00000004/state\.safetensors does not match its check",
    ):
        distilled(small(), digits, out=out)
    assert content(out) == content(whole)


def test_checkpoints_of_another_run_are_no_successors(digits, tmp_path):
    """Started anew in a used folder, a run keeps its own checkpoints.

    The old ones have larger numbers.
    """
    distilled(small(iterations=4), digits, out=tmp_path)
    seen = []
    distilled(
        small(iterations=4),
        digits,
        out=tmp_path,
        resume=False,
        callback=lambda p: seen.append(steps(tmp_path)),
    )
    assert seen[1:] == [
        ["step-00000001"],
        ["step-00000001", "step-00000002"],
        ["step-00000002", "step-00000003"],
    ]
    Checkpointer(tmp_path / "c", {}).save(10, {"a": torch.ones(1)})
    Checkpointer(tmp_path / "c", {}).save(3, {"a": torch.zeros(1)})
    assert Checkpointer(tmp_path / "c", {}).load().step == 3


def test_another_state_than_the_runs_is_refused(digits, tmp_path):
    distilled(small(), digits, out=tmp_path)
    config = run.identity(small(), digits)
    good = Checkpointer(tmp_path / "checkpoints", config).load()
    tensors, notes = good.tensors, good.notes
    cases = {
        "pixels is (9, 3, 32, 32)": {"space.pixels": tensors["space.pixels"][1:]},
        "float64, not": {"space.pixels": tensors["space.pixels"].double()},
        "is not finite": {"space.pixels": tensors["space.pixels"] / 0},
        "more is not of it": {"more": torch.ones(1)},
    }
    for message, changes in cases.items():
        for step in (3, 4):
            Checkpointer(tmp_path / "checkpoints", config).save(step, tensors | changes, notes)
        with pytest.raises(ValueError, match="holds other tensors than this run") as refused:
            distilled(small(), digits, out=tmp_path)
        assert message in str(refused.value)
    for bad in ({}, {"history": notes["history"][:2]}, {"history": [1, 2, 3, 4]}):
        Checkpointer(tmp_path / "checkpoints", config).save(4, tensors, bad)
        with pytest.raises(ValueError, match="no history of 4 iterations"):
            distilled(small(), digits, out=tmp_path)


# -- the set as a whole ----------------------------------------------------------------------------


class Kill(BaseException):
    """Passes every clean-up that asks for an Exception."""


def test_a_set_is_the_old_one_or_the_new_one(digits, tmp_path, monkeypatch):
    """Killed before any of its renames, removals and flushes, saving leaves one of the two."""
    one, two = (distilled(small(seed=s), digits) for s in (0, 1))
    counts = {"old": 0, "new": 0}
    for n in range(0, 200, 3):
        place = tmp_path / f"at-{n}" / "set"
        one.save(place)
        left = [n]

        def step(plain, left=left):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    raise Kill
                return plain(*arguments, **options)

            return call

        for name in ("replace", "fsync", "mkdir"):
            monkeypatch.setattr(os, name, step(getattr(os, name)))
        # so that no clean-up runs, as in a kill
        monkeypatch.setattr(files, "_remove", step(disk._remove))
        try:
            two.save(place)
            done = True
        except Kill:
            done = False
        monkeypatch.undo()
        found = SyntheticSet.load(place)
        which = "old" if torch.equal(found.images(), one.images()) else "new"
        assert torch.equal(found.images(), (one if which == "old" else two).images())
        counts[which] += 1
        two.save(place)  # the next run finishes it
        assert torch.equal(SyntheticSet.load(place).images(), two.images())
        assert sorted(p.name for p in place.parent.iterdir() if not p.name.startswith(".tmp-")) == [
            "set"
        ]
        if done:
            break
    assert done and counts["old"] > 8 and counts["new"] >= 1


def test_a_set_never_replaces_a_folder_of_other_things(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds other files \(thesis\.tex\)"):
        distilled(small(iterations=0), digits).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_saved_loaded_and_saved_is_the_same(digits, tiny_prior, tmp_path):
    made = distil(small("ld3m", iterations=1), data=digits, prior=tiny_prior, progress=False)
    made.save(tmp_path / "a")
    loaded = SyntheticSet.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")  # the copy is whole by itself
    assert torch.equal(SyntheticSet.load(tmp_path / "b").regenerate(), made.images())


# -- processes and signals -------------------------------------------------------------------------


def test_two_processes_in_one_folder(tmp_path, digits):
    script = (
        f"from ld3m_min.io.lock import locked\nwith locked({str(tmp_path)!r}): print('in'); input()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes) as other:
        other.stdout.readline()
        with pytest.raises(RuntimeError, match="another process works in"):
            distilled(small(), digits, out=tmp_path)
        other.kill()
    with locked(tmp_path):  # the lock went with the process
        pass


def test_a_deadline_in_a_notebook(digits, tmp_path):
    distilled(small(), digits, out=tmp_path / "whole")
    try:
        stop_after(0)
        with pytest.raises(
            Interrupted, match="1 of 4 iterations are saved; the same command goes on from there"
        ) as left:
            distilled(small(), digits, out=tmp_path / "run")
        assert left.value.code == 75 and steps(tmp_path / "run") == ["step-00000001"]
        lost = "nothing is kept without `out`; the same command starts"
        with pytest.raises(Interrupted, match=lost):
            distilled(small(), digits)
        with pytest.raises(Interrupted, match=lost):  # while experts are trained for the run
            distil(preset("smoke", algorithm="MTT"), data=digits, progress=False)
    finally:
        stop_after(None)
    goes_on_as_if_nothing_had_been(small(), digits, tmp_path / "run", tmp_path / "whole")


# -- numbers ---------------------------------------------------------------------------------------


def test_images_that_are_no_numbers(digits, tiny_prior, tmp_path):
    """The generator overflows at one iteration.

    No step is taken, it is counted, and the rest is as it would be.
    """
    config, plain = small("ld3m", iterations=3), tiny_prior.decode
    calls = [0]

    def overflow(z):
        calls[0] += len(z) > 1  # the rehearsal makes one
        images = plain(z)
        factor = torch.where(torch.arange(len(images)) == 3, float("inf"), 1.0).view(-1, 1, 1, 1)
        return images * factor if calls[0] == 2 else images

    tiny_prior.decode = overflow
    with pytest.warns(UserWarning, match="1 of 3 iterations were skipped"):
        made = distil(config, data=digits, prior=tiny_prior, progress=False)
    assert [h.get("why") for h in made.history] == [None, "generated images", None]
    assert all(torch.isfinite(v).all() for v in made.state.values())


@pytest.mark.parametrize(
    "what, why",
    [("loss", "loss"), ("gradient", "gradient of pixels"), ("latent", "pixels after the step")],
)
def test_a_loss_gradient_or_latent_that_is_no_number(digits, monkeypatch, what, why):
    plain = DISTILLERS["DM"].step

    def step(self, images, labels, iteration):
        loss = plain(self, images, labels, iteration)
        if iteration == 1:
            if what == "loss":
                return loss * float("inf")
            images.grad.view(-1)[5] = float("nan") if what == "gradient" else 1e18
        return loss

    monkeypatch.setattr(DM, "step", step)
    config = small(lr=1e30 if what == "latent" else 0.1, iterations=3, patience=3)
    with pytest.warns(UserWarning, match="of 3 iterations were skipped"):
        made = distilled(config, digits)
    assert made.history[1] == {"iteration": 1, "skipped": True, "why": why}
    assert torch.isfinite(made.images()).all()
    if what != "latent":
        undisturbed = [h for h in made.history if "skipped" not in h]
        assert len(undisturbed) == 2


def test_a_step_that_is_undone_leaves_no_trace(digits, monkeypatch):
    """Parameters and momenta after a step into infinity are those before it."""
    pixels = torch.zeros(2, requires_grad=True)
    sgd = torch.optim.SGD([pixels], lr=1.0, momentum=0.5)
    distiller = DM(small(), digits)
    share = Share(None, torch.zeros(2, dtype=torch.long))
    learner = Learner(distiller, {"space.pixels": pixels}, sgd, Checkpointer(None, None), share)
    pixels.grad = torch.tensor([1.0, 2.0])
    assert learner.step() is None
    before = pixels.detach().clone(), sgd.state[pixels]["momentum_buffer"].clone()
    sgd.param_groups[0]["lr"] = 3e38
    pixels.grad = torch.tensor([1e3, 0.0])
    assert learner.step() == "pixels after the step"
    assert torch.equal(pixels, before[0]) and torch.equal(
        sgd.state[pixels]["momentum_buffer"], before[1]
    )


@pytest.mark.parametrize("lr_lr", [1e6, 1e30])
def test_mtts_rate_is_held_and_said(digits, tmp_path, lr_lr):
    config = small(algorithm="MTT", iterations=3)
    config = replace(config, mtt=replace(config.mtt, lr_lr=lr_lr))
    with pytest.warns(
        UserWarning, match=r"held at its bound in \d of 3 iterations; lower mtt\.lr_lr"
    ):
        made = distilled(config, digits, out=tmp_path)
    rates = [h["lr"] for h in made.history]
    assert all(0.01 * config.mtt.lr * 0.999 <= r <= 100 * config.mtt.lr * 1.001 for r in rates)
    assert any(h.get("lr_held") for h in made.history)


def test_patience_survives_a_resume(digits, tmp_path, monkeypatch):
    """Three misses, a stop, three misses more.

    With patience 5 the run gives up where an unbroken one does.
    """
    monkeypatch.setattr(run, "_match", lambda *a: run.Match(float("nan"), {}, "loss"))
    config = small(iterations=8, patience=5)

    def stop():
        raise Kill

    with pytest.raises(FloatingPointError, match="in 5 iterations in a row, the last one 4"):
        distilled(config, digits, out=tmp_path / "whole")
    with pytest.raises(Kill):
        distilled(config, digits, out=tmp_path / "run", callback=at(3, stop))
    with pytest.raises(FloatingPointError, match="in 5 iterations in a row, the last one 4"):
        distilled(config, digits, out=tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


# -- priors that do not fit ------------------------------------------------------------------------


def test_one_step_and_too_many(linear_prior, codes):
    assert timesteps(1, 1000) == [1] and len(timesteps(1000, 1000)) == 1000
    config = SamplerConfig(steps=1, guidance_scale=1.0)
    assert torch.isfinite(generate_latents(linear_prior(), *codes, config)).all()
    with pytest.raises(ValueError, match="trained with 1000; use 1 to 1000"):
        generate_latents(linear_prior(), *codes, replace(config, steps=1001))


def test_a_prior_that_predicts_velocity_is_the_same_prior(tiny_prior):
    """v-prediction is turned into noise, not taken for it."""
    z, t = (
        torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([10, 900]),
    )
    z = z[:, : tiny_prior.latent_channels]
    c = tiny_prior.class_conditioning(torch.tensor([0, 1]))
    out = tiny_prior.predict_noise(z, t, c)
    velocity = tiny_prior._like(scheduler=ldm_scheduler(prediction_type="v_prediction"))
    a = tiny_prior.alpha_bar.float()[t].view(-1, 1, 1, 1)
    assert torch.allclose(
        velocity.predict_noise(z, t, c), a.sqrt() * out + (1 - a).sqrt() * z, atol=1e-6
    )


def test_seeds_order_and_batches_do_not_decide(tiny_prior):
    """Case 20: one image at a time or all at once is the same image, within rounding."""
    g = torch.Generator().manual_seed(0)
    Z, noise = (torch.randn(6, tiny_prior.latent_channels, 8, 8, generator=g) for _ in range(2))
    c = tiny_prior.class_conditioning(torch.arange(6))
    config = SamplerConfig(steps=3)
    together = generate(tiny_prior, Z, c, noise, config)
    apart = torch.cat(
        [
            generate(tiny_prior, Z[i : i + 1], c[i : i + 1], noise[i : i + 1], config)
            for i in range(6)
        ]
    )
    assert (together - apart).abs().max() < 1e-5
    assert torch.equal(together, generate(tiny_prior, Z, c, noise, config))


def test_counted_draws_do_not_depend_on_order():
    draws = {
        k: torch.randn(4, generator=seeds.seeded(0, *k)) for k in [("a", 1), ("b", 1), ("a", 2)]
    }
    for k in reversed(list(draws)):
        assert torch.equal(draws[k], torch.randn(4, generator=seeds.seeded(0, *k)))


def test_writers_of_one_folder_leave_each_others_files_alone(tmp_path):
    """Each sweeps what killed writers left; what another is writing at the moment is no such."""

    def write(who):
        for i in range(60):
            write_json(tmp_path / f"{who}.json", {"who": who, "i": i})
            with replace_folder(tmp_path / f"folder {who}") as place:
                (place / "file").write_text(str(i))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, who) for who in range(4)]:
            done.result()
    assert {read_json(tmp_path / f"{who}.json")["i"] for who in range(4)} == {59}
    assert len(list(tmp_path.iterdir())) == 8  # and no litter


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be removed there")
def test_a_file_that_was_swept_before_it_was_locked_is_begun_again(tmp_path, monkeypatch):
    true, swept = disk.hold, []

    def too_late(handle):
        for name in [p for p in tmp_path.iterdir() if not swept]:
            swept.append(name)
            name.unlink()
        return true(handle)

    monkeypatch.setattr(disk, "hold", too_late)
    write_bytes(tmp_path / "kept", b"whole")
    assert swept and [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"whole"


def test_without_locks_only_old_litter_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "try_lock", lambda handle: None)
    young, old = (tmp_path / f".tmp-{k * 32}-x" for k in "ab")
    for litter in (young, old):
        litter.write_bytes(b"")
    os.utime(old, (0, time.time() - 2 * disk.ABANDONED))
    disk.sweep(tmp_path)
    assert young.exists() and not old.exists()


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 200_000], ids=["a long number", "a deep list"])
def test_json_that_python_cannot_hold_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="is not valid JSON"):
        read_json(tmp_path / "x.json")

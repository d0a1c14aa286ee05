"""Trainings side by side.

The same draws and results as one after the other, whatever stops them; groups, threads, folders.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ld3m_min.augment import DSA
from ld3m_min.config import ARCHITECTURES, EvalConfig
from ld3m_min.evaluate import evaluate
from ld3m_min.evaluate import jobs as judging
from ld3m_min.evaluate.protocol import train_network
from ld3m_min.io import stop as signals
from ld3m_min.io.seeds import seeded
from ld3m_min.io.stop import Interrupted
from ld3m_min.io.threads import side_by_side
from ld3m_min.networks import build_network, flat_parameters
from ld3m_min.presets import eval_preset, preset
from ld3m_min.run import random_real
from ld3m_min.training import Draws, Group, batch_sizes, group_size, stacks


@pytest.fixture(scope="module")
def real(digits):
    return random_real(preset("smoke"), data=digits)


@pytest.mark.parametrize("batch", [1, 4, 32, 256])
def test_no_step_of_an_epoch_takes_a_few_images_alone(batch):
    for n in range(1, 3 * batch + 2):
        sizes = batch_sizes(n, batch)
        assert sum(sizes) == n
        assert len(sizes) == 1 or 8 * min(sizes) >= batch, (n, sizes)
        assert max(sizes) < batch * 9 / 8
    assert batch_sizes(161, 32) == [32, 32, 32, 32, 33], "one image alone spoiled a training"


def networks(name, n, norm="instance"):
    return [
        build_network(name, size=32, width=16, norm=norm, generator=seeded(0, "n", r)).double()
        for r in range(n)
    ]


def train(name, first, last, stacked, config, x, y):
    """Repeats first to last trained together: their parameters, (R, P)."""
    nets = networks(name, last + 1)[first:]
    judging.train_networks(
        nets,
        x,
        y,
        config,
        0.01,
        [seeded(0, "t", r) for r in range(first, last + 1)],
        stacked=stacked,
    )
    return torch.stack([flat_parameters(n) for n in nets])


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_group_is_the_loop_on_the_same_draws(name, stacked, digits, real):
    """Weights after 3 epochs of 3 batches, augmented, with dropout: equal to rounding; alone or
    with others as well.

    In float64: in float32 a rounding that turns one maximum of VGG11's poolings is soon as large as
    a weight.
    """
    config = EvalConfig(epochs=3, batch=4, width=16)
    x, y = digits.normalise(real.images().detach()).double(), real.labels
    loop = [
        flat_parameters(train_network(n, x, y, config, 0.01, seeded(0, "t", r)))
        for r, n in enumerate(networks(name, 3))
    ]
    together, alone = (
        train(name, 0, 2, stacked, config, x, y),
        train(name, 1, 1, stacked, config, x, y),
    )
    moved = (
        (torch.stack(loop) - torch.stack([flat_parameters(n) for n in networks(name, 3)]))
        .abs()
        .max()
    )
    assert moved > 1e-3
    assert (together - torch.stack(loop)).abs().max() < 1e-9 and (
        alone[0] - loop[1]
    ).abs().max() < 1e-9
    # the same call, the same bits
    assert torch.equal(train(name, 0, 2, stacked, config, x, y), together)


def test_accuracies_are_the_loops(digits, real):
    config = eval_preset("smoke", epochs=4)
    assert evaluate(real, digits, config=config) == evaluate(
        real, digits, config=config, plain=True
    )


def test_neither_threads_nor_the_global_generator_matter(digits, real):
    config, threads = eval_preset("smoke", epochs=2), torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            torch.manual_seed(n)
            state = torch.get_rng_state()
            results.append(evaluate(real, digits, ("ViT", "ConvNet"), config=config))
            assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]
    more = evaluate(real, digits, ("ConvNet",), config=replace(config, repeats=3)).accuracies[
        "ConvNet"
    ]
    assert more[:2] == results[0].accuracies["ConvNet"]


def test_batch_normalisation_is_never_stacked():
    assert [
        Group(networks("ConvNet", 2, norm), stacked=True).stacked for norm in ("batch", "instance")
    ] == [False, True]


def test_groups_and_jobs():
    assert (
        group_size(5, 10, 128) == 5
        and group_size(5, 100, 128) == 1
        and group_size(5, 1000, 256) == 1
    )
    assert stacks("ViT", "cpu") and not stacks("ConvNet", "cpu") and stacks("ConvNet", "cuda")
    jobs = judging.plan_jobs(("ViT", "ConvNet"), 5, 3, "cpu")
    assert [(j.first, j.last) for j in jobs] == [(0, 2), (3, 4)] + [(i, i) for i in range(5)]


def test_the_schedule_draws_what_the_loop_draws():
    dsa = DSA()
    (first, draws), (second, _) = Draws(7, 4, 32, dsa).epoch([seeded(0, r) for r in range(2)])
    g = seeded(0, 1)
    order = torch.randperm(7, generator=g)
    assert torch.equal(first[1], order[:4]) and torch.equal(second[1], order[4:])
    expected = dsa.draw(4, 32, g)
    assert draws[1].family == expected.family
    assert all(torch.equal(v, draws[1].values[k]) for k, v in expected.values.items())


@pytest.mark.parametrize("siamese", [False, True])
def test_many_draws_in_one_call(siamese):
    """24 draws of all families, of 1 to 4 images: bit for bit what each gives by itself."""
    dsa, g, counts = DSA(), seeded(0, "many"), [1 + i % 4 for i in range(24)]
    x = torch.randn(sum(counts), 3, 16, 16, generator=g)
    draws = [dsa.draw(n, 16, g, siamese=siamese) for n in counts]
    assert len({d.family for d in draws}) == 6
    expected = torch.cat(
        [dsa.apply(part, d) for part, d in zip(x.split(counts), draws, strict=True)]
    )
    assert torch.equal(dsa.apply_each(x, draws, counts), expected)
    with pytest.raises(ValueError, match="add up to 60, but there are 59 images"):
        dsa.apply_each(x[1:], draws, counts)


# -- resume ----------------------------------------------------------------------------------------


class StopAt:
    """In the place of `signals.Stop.reason`: SIGTERM from the n-th question on."""

    def __init__(self, n):
        self.left = n

    def __get__(self, stop, owner):
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def test_stopped_anywhere_the_result_is_the_same(digits, real, tmp_path, monkeypatch):
    config, names = (
        EvalConfig(epochs=5, width=16, repeats=2, lr={"default": 0.02}),
        ("ConvNet", "ViT", "AlexNet"),
    )
    expected = evaluate(real, digits, names, config=config)

    for stops in range(60):  # noqa: B007
        with monkeypatch.context() as m:
            m.setattr(signals.Stop, "reason", StopAt(4))
            try:
                found = evaluate(real, digits, names, config=config, out=tmp_path)
                break
            except Interrupted as left:
                assert left.code == 143 and "of 6 trainings are finished and saved" in str(left)
    assert found == expected and stops >= 5
    left = list(tmp_path.glob("*/step-*/state.safetensors"))
    assert len(left) == 5 and all(not load_file(f) for f in left)  # of finished trainings: notes
    assert evaluate(real, digits, names, config=config, out=tmp_path) == expected


@pytest.mark.parametrize("name", ["ConvNet", "ViT"])
def test_a_training_halted_after_every_epoch_has_the_same_weights(name, digits, real, tmp_path):
    """Bit for bit, dropout and momentum included, with the newest checkpoint destroyed midway."""
    config, x, y = (
        EvalConfig(epochs=6, width=16, repeats=2),
        digits.normalise(real.images().detach()),
        real.labels,
    )
    job = judging.Job(name, 0, 1)
    trial = judging.Trial(x, y, digits, config, 0)
    folder = judging.Folder(tmp_path, trial.description)

    def once(**options):
        nets, generators = judging.build(job, trial, "cpu")
        nets = judging.train_networks(
            nets, x, y, config, 0.01, generators, stacked=stacks(name, "cpu"), **options
        )
        return nets and torch.stack([flat_parameters(n) for n in nets])

    expected, found, rounds = once(), None, 0
    while found is None:
        found = once(checkpoints=folder.checkpoints(job), halted=lambda: True)
        rounds += 1
        if rounds == 3:
            newest = max((tmp_path / job.name).glob("step-*"))
            (newest / "state.safetensors").write_bytes(b"torn")
    assert rounds == 7 and torch.equal(found, expected)  # 6 epochs, one of them twice


def test_others_folders_are_refused_and_damage_is_named(digits, real, tmp_path):
    config = eval_preset("smoke", epochs=1)
    evaluate(real, digits, ("ConvNet",), config=config, out=tmp_path)
    for change, message in (
        (dict(config=replace(config, epochs=2)), r"config\.epochs: 1 -> 2"),
        (dict(seed=1), "seed: 0 -> 1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(real, digits, ("ConvNet",), **{"config": config, **change}, out=tmp_path)
    other = type(real)(real.images() * 0.5, real.labels, real.classes)
    with pytest.raises(ValueError, match=r"another evaluation(.|\n)*set: "):
        evaluate(other, digits, ("ConvNet",), config=config, out=tmp_path)
    job = tmp_path / "ConvNet-000-000"  # an older checkpoint that a kill left goes
    shutil.copytree(job / "step-00000001", job / "step-00000000")
    evaluate(real, digits, ("ConvNet",), config=config, out=tmp_path)
    (file,) = job.glob("step-*/manifest.json")
    found = json.loads(file.read_text())
    for text in (json.dumps(found | {"notes": {"accuracies": [0.99]}}), "{", "[]"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"no checkpoint in .*ConvNet-000-000 is whole; rem"):
            evaluate(real, digits, ("ConvNet",), config=config, out=tmp_path)
    with pytest.raises(ValueError, match="plain loop keeps nothing"):
        evaluate(real, digits, config=config, out=tmp_path, plain=True)


def test_a_second_process_is_refused(digits, real, tmp_path):
    from ld3m_min.io.lock import locked

    with locked(tmp_path), pytest.raises(RuntimeError, match="another process works in"):
        evaluate(real, digits, ("ConvNet",), config=eval_preset("smoke"), out=tmp_path)


def test_an_error_in_one_training_ends_the_others():
    def work(job, halted):
        if job == 0:
            raise FloatingPointError("training 0 diverged")
        while not halted():
            time.sleep(0.001)

    with signals.stoppable() as stop, pytest.raises(FloatingPointError, match="training 0"):
        side_by_side(work, range(4), workers=2, stop=stop)


CHILD = """
import sys
from pathlib import Path
from ld3m_min.config import EvalConfig
from ld3m_min.presets import preset
from ld3m_min.data import load_data
from ld3m_min.evaluate import evaluate
from ld3m_min.run import random_real
from ld3m_min.io.stop import Interrupted
data = load_data("digits")
real = random_real(preset("smoke"), data=data)
config = EvalConfig(epochs=400, width=16, repeats=2, lr={"default": 0.02})
print("ready", flush=True)
try:
    print(evaluate(real, data, ("ConvNet",), config=config, out=sys.argv[1]).accuracies)
except Interrupted as stop:
    print(stop)
    sys.exit(stop.code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_sigterm_saves_and_the_exit_code_says_so(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout.readline() == "ready\n"
    while not (tmp_path / "evaluation.json").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    text, _ = child.communicate(timeout=120)
    assert child.returncode == 143 and text.startswith(
        "SIGTERM: 0 of 2 trainings are finished and saved"
    )
    assert len(list(tmp_path.glob("ConvNet-*/*/manifest.json"))) in (1, 2)

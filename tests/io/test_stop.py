"""A loop is asked to stop once a round; the reason decides the exit code."""

import os
import signal
import threading
from dataclasses import replace

import pytest

from ld3m_min import eval_preset, preset, select
from ld3m_min.evaluate import evaluate, jobs
from ld3m_min.experts import train, train_experts
from ld3m_min.io.stop import REASONS, Interrupted, stop_after, stoppable


@pytest.mark.parametrize("number, reason", [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_asks_and_a_second_one_interrupts(number, reason):
    before = signal.getsignal(number)
    with stoppable() as stop:
        assert stop.reason is None
        os.kill(os.getpid(), number)
        assert stop.reason == reason
        with pytest.raises(Interrupted, match="3 of 5 are saved; the same command goes on") as left:
            stop.leave("3 of 5 are saved")
        assert left.value.code == REASONS[reason] and isinstance(left.value, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_the_innermost_loop_sees_it():
    with stoppable() as outer, stoppable() as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        assert inner.reason == "SIGTERM" and outer.reason is None


def test_a_deadline():
    try:
        stop_after(0)
        with stoppable() as stop:
            assert REASONS[stop.reason] == 75
        stop_after(1000)
        assert stop.reason is None
    finally:
        stop_after(None)


def test_other_threads_may_use_it():
    seen = []

    def work():
        with stoppable() as stop:
            seen.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def signalled(monkeypatch, module, name):
    """A function of a module that asks the process to stop before it does its work."""
    plain = getattr(module, name)

    def late(*given, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given, **named)

    monkeypatch.setattr(module, name, late)


def test_a_signal_in_the_last_part_of_the_work_is_not_lost(digits, tmp_path, monkeypatch):
    """What is finished is saved, and the caller doesn't go on; the next call takes it."""
    config = preset("smoke", algorithm="MTT")
    config = replace(config, mtt=replace(config.mtt, experts=1, max_start_epoch=0, expert_epochs=1))
    options = {"config": eval_preset("smoke", repeats=1, epochs=1), "out": tmp_path / "evaluation"}

    def experts():
        return train_experts(config, digits, tmp_path / "experts", progress=False)

    def tested():
        return evaluate(select(digits, 1), digits, ("MLP",), **options)

    for work, module, name in ((experts, train, "_check_finite"), (tested, jobs, "accuracy")):
        with monkeypatch.context() as patched:
            signalled(patched, module, name)
            with pytest.raises(Interrupted, match=r"SIGTERM: .* finished and saved"):
                work()
        monkeypatch.setattr(module, name, None)  # nothing is left to do
        work()

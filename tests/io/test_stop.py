"""A loop is asked to stop once a round; the reason decides the exit code."""

import os
import signal
import threading

import pytest

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

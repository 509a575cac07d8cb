"""What a process does when a child ends is, after a training, what it did before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from model.training.distributed import child_signal_kept


def another(*_: object) -> None:
    """What a loader installs."""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_what_was_there_before_is_there_again(before: object) -> None:
    signal.signal(signal.SIGCHLD, before)  # type: ignore[arg-type]

    def fail() -> None:
        with child_signal_kept():
            signal.signal(signal.SIGCHLD, another)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert signal.getsignal(signal.SIGCHLD) is before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    signal.signal(signal.SIGCHLD, another)
    entered = threading.Event()

    def work() -> None:
        with child_signal_kept():
            entered.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered.is_set()
    assert signal.getsignal(signal.SIGCHLD) is another

"""Ctrl-C as the end of something."""

import signal
import threading
from collections.abc import Iterator

import pytest

from engine.interruption import until_interrupted

SIGNALS = signal.SIGINT, signal.SIGTERM


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_being_done_is_done_to_its_end(number: signal.Signals) -> None:
    before, done = [signal.getsignal(each) for each in SIGNALS], []
    with until_interrupted(range(10)) as items:
        for item in items:
            if item == 2:
                signal.raise_signal(number)
            done.append(item)
    assert done == [0, 1, 2]
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_waiting_is_broken_off(number: signal.Signals) -> None:
    def wait() -> Iterator[int]:
        yield 0
        threading.Timer(0.05, interrupt_main).start()
        threading.Event().wait(30)
        yield 1

    main = threading.main_thread().ident
    assert main is not None

    def interrupt_main() -> None:
        signal.pthread_kill(main, number)

    with until_interrupted(wait()) as numbers:
        assert list(numbers) == [0]


def test_the_second_one_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with until_interrupted(range(10)) as numbers:
        next(numbers)
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_of_the_items_own_is_passed_on() -> None:
    def fail() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with until_interrupted(fail()) as numbers, pytest.raises(KeyboardInterrupt):
        list(numbers)

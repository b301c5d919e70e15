"""Ctrl-C as the end of something."""

import signal
import threading
from collections.abc import Iterator

import pytest

from engine.interruption import until_interrupted


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_what_is_being_done_is_done_to_its_end() -> None:
    before, done = signal.getsignal(signal.SIGINT), []
    with until_interrupted(range(10)) as numbers:
        for number in numbers:
            if number == 2:
                interrupt()
            done.append(number)
    assert done == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is before


def test_waiting_is_broken_off() -> None:
    def wait() -> Iterator[int]:
        yield 0
        threading.Timer(0.05, interrupt_main).start()
        threading.Event().wait(30)
        yield 1

    main = threading.main_thread().ident
    assert main is not None

    def interrupt_main() -> None:
        signal.pthread_kill(main, signal.SIGINT)

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

"""Single keys of a terminal, without Enter. Where none is, no key is ever pressed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PRESSED_EVERY_S = 0.05

if sys.platform == "win32":
    import msvcrt
    import threading

    @contextmanager
    def single_keys() -> Iterator[Callable[[float], str]]:
        """Give a function that waits at most so many seconds for a key, and returns it, or an empty text."""
        never = threading.Event()

        def pressed(wait_s: float) -> str:
            for _ in range(max(1, int(wait_s / PRESSED_EVERY_S))):
                if msvcrt.kbhit():
                    return msvcrt.getwch()
                never.wait(PRESSED_EVERY_S)
            return ""

        yield pressed

else:
    import os
    import select
    import termios
    import tty

    @contextmanager
    def single_keys() -> Iterator[Callable[[float], str]]:
        """Give a function that waits at most so many seconds for a key, and returns it, or an empty text.

        Ctrl-C stays what it is. The terminal is put back as it was.
        """
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)

        def pressed(wait_s: float) -> str:
            is_there, _, _ = select.select([number], [], [], wait_s)
            return os.read(number, 1).decode("ascii", "replace") if is_there else ""

        try:
            tty.setcbreak(number)
            yield pressed
        finally:
            termios.tcsetattr(number, termios.TCSADRAIN, before)

"""The one place that prints: results on stdout, all else on stderr, and JSON. Nothing from outside gets out raw."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exlab_watch_agent.core.text import printable, reason
from exlab_watch_agent.errors import AgentError


class NobodyReadsError(Exception):
    """Whoever read our results has gone (`... | head -1`). No OSError: the library of the command line ends the program on one."""


def prepare() -> None:
    """Have everything printable in every terminal: what its encoding lacks is spelled out, and never an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Print what waits to be. Raises: NobodyReadsError."""
    with _reading():
        sys.stdout.flush()


def let_go() -> None:
    """Drop what waits to be printed, which nobody reads: the interpreter would complain of that when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise NobodyReadsError from error


# Some spreadsheets skip blanks before a formula, and take the wide forms of its signs for the narrow ones.
_FORMULA = re.compile(r"(\s|\\t|\\r|\\n)*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def say(text: str = "", *, end: str = "\n", is_flushed: bool = False) -> None:
    """Print one line of a result. Several lines are several calls, so that no name can make one. Raises: NobodyReadsError."""
    with _reading():
        print(printable(text), end=end, flush=is_flushed)


def say_aside(text: str, *, is_flushed: bool = False) -> None:
    """Print one line on stderr."""
    print(printable(text), file=sys.stderr, flush=is_flushed)


def say_lines_aside(text: str) -> None:
    """Print a text of several lines on stderr, whose line ends are our own."""
    for line in text.split("\n"):
        say_aside(line)


def say_json(value: Any) -> None:
    """Print a value as JSON in ASCII: nothing is lost of it, and nothing in it steers a terminal."""
    with _reading():
        print(json.dumps(value, indent=2, ensure_ascii=True))


def say_csv(cells: Sequence[str]) -> None:
    """Print one line of CSV."""
    say(csv_line(cells))


def csv_line(cells: Sequence[str]) -> str:
    """Return one line of CSV, without its line end. What a spreadsheet would take for a formula begins with an apostrophe."""
    line = io.StringIO()
    shown = (printable(cell) for cell in cells)
    csv.writer(line, lineterminator="").writerow([f"'{cell}" if _FORMULA.match(cell) else cell for cell in shown])
    return line.getvalue()


def write_new(path: Path, content: bytes, *, taken: str) -> None:
    """Write a file that did not exist: a mistyped name can be that of somebody's data. `taken`: what is said where it exists.

    Raises: AgentError.
    """
    shown = printable(str(path))
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise AgentError(f"{shown} {taken}") from error
    except OSError as error:
        raise AgentError(f"{shown} cannot be written: {reason(error)}.") from error
    try:
        with file:
            file.write(content)
    except OSError as error:
        path.unlink()  # half of it would be taken for the whole
        raise AgentError(f"{shown} cannot be written: {reason(error)}.") from error


def write_new_folder(path: Path, files: Mapping[str, bytes], *, taken: str) -> None:
    """Write a folder that did not exist. `files`: POSIX path → content, in this order; a path that ends in `/` is an empty folder.

    Where it cannot be finished nothing of it is left. Raises: AgentError.
    """
    shown = printable(str(path))
    made: list[Path] = []
    try:
        path.mkdir()
        made.append(path)
        for name, content in files.items():
            target = path / name
            missing = [folder for folder in (target, *target.parents) if path in folder.parents and not folder.exists()]
            for folder in reversed(missing if name.endswith("/") else missing[1:]):
                folder.mkdir()
                made.append(folder)
            if not name.endswith("/"):
                with target.open("xb") as file:
                    made.append(target)
                    file.write(content)
    except OSError as error:
        for one in reversed(made):
            with suppress(OSError):  # what cannot be removed either is left, and the sentence below is said
                one.rmdir() if one.is_dir() else one.unlink()
        if not made and isinstance(error, FileExistsError):
            raise AgentError(f"{shown} {taken}") from error
        raise AgentError(f"{shown} cannot be written: {reason(error)}.") from error


def put(content: bytes) -> None:
    """Put bytes on stdout as they are: a picture that is led into a file or a pipe."""
    with _reading():
        sys.stdout.buffer.write(content)
        sys.stdout.flush()

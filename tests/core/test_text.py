"""Text from outside is made safe to show by one rule, and each use of it says the same of the same text."""

from __future__ import annotations

import errno
import shlex
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.text import (
    counted,
    named,
    printable,
    printable_lines,
    reason,
    reason_with_name,
    shell_word,
    shortened,
    unicode_text,
    utc_text,
    utc_text_exact,
)

ODD = {
    "a\nb": r"a\nb",
    "a\tb\r": r"a\tb\r",
    "\x00\x07\x1b[31m": r"\x00\x07\x1b[31m",
    "\x7f\x85\x9b": r"\x7f\x85\x9b",
    "line\u2028end\u2029": r"line\u2028end\u2029",
    "cod\u202egpj.exe": r"cod\u202egpj.exe",
    "\u2066a\u2069": r"\u2066a\u2069",
    "a\u200eb\u200fc\u061cd\u206a": r"a\u200eb\u200fc\u061cd\u206a",
    "Run_\udcff": r"Run_\udcff",
}


@pytest.mark.parametrize(("text", "shown"), ODD.items(), ids=ascii)
def test_what_breaks_a_line_a_terminal_or_utf_8_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert named(text, limit=80) == f"'{shown}'"
    shown.encode()


@pytest.mark.parametrize("text", ["plain", "ä € 😀", "back\\slash", "non\u00a0breaking", "می\u200cخواهم"])
def test_text_that_does_no_harm_stays_as_it_is(text: str) -> None:
    assert printable(text) == named(text, limit=80) == printable_lines(text) == text


@given(st.text())
def test_no_text_makes_a_second_line_or_cannot_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([shown], [])
    shown.encode()
    assert printable(shown) == shown


def test_json_text_is_as_it_is_but_for_what_is_no_unicode() -> None:
    assert unicode_text("a\n\x1b\u202e\u200f😀") == "a\n\x1b\u202e\u200f😀"
    assert unicode_text("Run_\udcff\n") == "Run_\\udcff\n"


def test_line_ends_of_our_own_stay_and_all_else_is_spelled_out() -> None:
    assert printable_lines("one\ntwo\x1b[31m\r\nthree") == "one\ntwo\\x1b[31m\\r\nthree"


def test_a_name_that_is_empty_can_be_seen_and_a_long_one_ends() -> None:
    assert named("", limit=80) == "''"
    assert named("a" * 200, limit=80) == "a" * 79 + "…"
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "ab…"


@pytest.mark.parametrize("path", ["/data/Run 1", "/data/it's", "/data/plain", "/$HOME/`x`"])
def test_a_posix_path_is_one_word_for_a_posix_shell(path: str) -> None:
    assert shlex.split(shell_word(path)) == [path]


def test_any_other_path_is_one_word_as_windows_quotes_it_and_no_word_steers_the_terminal() -> None:
    assert shell_word("C:\\data\\Run 1") == '"C:\\data\\Run 1"'
    assert shell_word("C:\\data\\Run_1") == "C:\\data\\Run_1"
    assert shell_word("ours.yaml") == "ours.yaml"
    assert shell_word("%TEMP%") == '"%TEMP%"'
    assert shell_word("--all") == '"--all"'
    assert shell_word("/data/\x1b[31m") == "'/data/\\x1b[31m'"


def test_times_are_utc_whatever_zone_they_come_in() -> None:
    moment = datetime(2026, 4, 17, 16, 32, 11, 5000, tzinfo=timezone(timedelta(hours=2)))
    assert utc_text(moment) == "2026-04-17T14:32:11Z"
    assert utc_text_exact(moment.astimezone(UTC)) == "2026-04-17T14:32:11.005000Z"


def test_one_is_singular() -> None:
    assert (counted(0, "file"), counted(1, "file"), counted(2, "file")) == ("0 files", "1 file", "2 files")


def test_an_error_without_words_of_the_system_still_has_a_reason() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/a")
    assert reason(full) == "No space left on device"
    assert reason_with_name(full) == "No space left on device ('/data/a')"
    assert reason(OSError("read past the end")) == "read past the end"
    assert reason(TimeoutError()) == reason_with_name(TimeoutError()) == "TimeoutError"

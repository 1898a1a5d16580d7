"""What single values of the config file may be. A refusal says what is allowed and never what was given.

Purely textual: the disk is not asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from exlab_watch_agent.core.inventory import CACHE_FOLDER

YEAR_HOURS = 24 * 366
REREAD_DAYS_MAX = 3660


def refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


def printable_text(value: str) -> str:
    if not value.isprintable():
        raise refusal("must not contain line breaks or other control characters")
    return value


def local_path(value: str) -> str:
    """Return the path with `~` put in, normalised. Purely textual: the disk is not asked."""
    path = os.path.expanduser(printable_text(value))
    if not os.path.isabs(path):
        raise refusal("must be an absolute path (a leading ~ is the home folder)")
    if ".." in re.split(r"[/\\]" if os.name == "nt" else "/", path):
        raise refusal('must not contain "..": write the folder that is meant')
    return os.path.normpath(path)


def ssh_config_text(value: str) -> str:
    return value if value in ("user", "none") else local_path(value)


def equipment_id_text(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,31}", value):
        raise refusal("must be 1 to 32 characters of A-Z, 0-9 and _, the first a letter (like CONFOCAL_01)")
    return value


def plain_file_name(value: str) -> str:
    printable_text(value)
    if "/" in value or "\\" in value or value in (".", ".."):
        raise refusal("must be the name of a file in the run folder, without any path")
    if value.casefold() == CACHE_FOLDER:
        raise refusal(f"must not be the cache folder {CACHE_FOLDER}")
    return value


def ssh_target_text(value: str) -> str:
    # The name is put on ssh's command line: nothing that could be an option, a path or a second word.
    if not re.fullmatch(
        r"(?:[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,63}@)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?", value
    ):
        raise refusal(
            "must be user@host, of letters, digits, dots, dashes and underscores (like labuser@nas01.lab.example, or "
            "LAB\\labuser@nas01)"
        )
    return value


def rclone_remote_name(value: str) -> str:
    # A colon or comma would turn the name into a connection string, which can hold a password or name another backend.
    if not value or value.startswith("-") or re.search(r"[:,/\\]", printable_text(value)):
        raise refusal('must be the name of a remote in rclone.conf, without ":", "," or "/" and not beginning with "-"')
    return value


def _folder_at_destination(value: str) -> str:
    if ".." in printable_text(value).split("/"):
        raise refusal('must not contain "..": write the folder that is meant')
    folder = value.rstrip("/") or value[:1]
    if not folder:
        raise refusal("must name a folder")
    return folder


def rclone_path(value: str) -> str:
    # rclone is asked for the bytes of a file by "[remote:path]/file".
    if "]" in value:
        raise refusal('must not contain "]"')
    return _folder_at_destination(value)


def remote_path_over_ssh(value: str) -> str:
    # It is handed over quoted, so that the far shell expands nothing in it: the home folder is asked for.
    if not value.startswith(("/", "~/")) or value.strip("/") == "~":
        raise refusal("must be an absolute path on the server, beginning with / or with ~/, the account's home folder")
    return _folder_at_destination(value)


def _clock_time(value: object) -> str:
    # A mapping may have 1080 for an unquoted 18:00, by YAML 1.1; it may as well be meant as 10:80, so it is refused.
    if not isinstance(value, str) or not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise refusal('must be a time from "00:00" to "23:59", zero-padded, local time; quote it, like "08:00"')
    return value


_SECONDS_PER = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?[smhd]", value):
        raise refusal('must be a number with a unit, s, m, h or d, in quotes, like "30s", "8m", "2h" or "1d"')
    if seconds(value) > 30 * _SECONDS_PER["d"]:
        raise refusal("must be at most 30d")
    return value


def seconds(duration: str) -> float:
    return float(duration[:-1]) * _SECONDS_PER[duration[-1]]


def log_level(value: object) -> object:
    # ExLab-Wizard takes any case, and calls WARNING also WARN.
    if not isinstance(value, str):
        return value
    level = value.strip().upper()
    return "WARNING" if level == "WARN" else level


Text = Annotated[str, AfterValidator(printable_text), Field(min_length=1, max_length=4096)]
LocalPath = Annotated[str, AfterValidator(local_path), Field(min_length=1, max_length=4096)]
ClockTime = Annotated[str, BeforeValidator(_clock_time)]
Duration = Annotated[str, BeforeValidator(_duration)]
SshConfig = Annotated[str, AfterValidator(ssh_config_text), Field(min_length=1, max_length=4096)]
Observer = Literal["auto", "native", "polling"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def accepted(check: Callable[[str], str], value: object) -> str | None:
    try:
        return check(value.strip()) if isinstance(value, str) and value.strip() else None
    except PydanticCustomError:
        return None

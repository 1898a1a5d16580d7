"""What a file has beside its bytes: owner, mode, access list and extended attributes, carried over to the file that replaces it.

Decided here: which of them are carried, in which order, and that what cannot be carried never gives anybody more than before.
Not here: whether that is said to anybody, and how the file gets its place (durable.py).

Source: acl(5), xattr(7), <linux/posix_acl_xattr.h>.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from exlab_watch_agent.core.text import printable, shortened

ACCESS_LIST = "system.posix_acl_access"
_ACCESS_LIST_IN_WORDS = "access list (ACL)"
_NAME_CHARS_MAX = 80
_NEVER_CARRIED = frozenset({"security.ima", "security.evm"})
"""Signatures of the old bytes: over others they would make the file unreadable."""
_HAS_NONE = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})  # the file system has no such thing

_ACL_HEADER_BYTES, _ACL_ENTRY = 4, struct.Struct("<HHI")
_GROUP_OBJ, _MASK, _OTHER = 0x04, 0x10, 0x20


@dataclass(frozen=True, slots=True)
class Attributes:
    """`extended`: name → bytes, the access list among them. `unknown`: what could not be asked for; nothing compares by it."""

    mode: int
    owner: tuple[int, int]
    extended: Mapping[str, bytes]
    unknown: tuple[str, ...] = field(default=(), compare=False)


def attributes_of(descriptor: int) -> Attributes:
    """Return what an open file has. Raises: OSError, only where the file itself cannot be asked."""
    status = os.fstat(descriptor)
    extended: dict[str, bytes] = {}
    unknown: list[str] = []
    for name in _names(descriptor, unknown):
        try:
            extended[name] = os.getxattr(descriptor, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # taken away since it was listed
                unknown.append(_in_words(name))
    return Attributes(stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), extended, tuple(unknown))


def _names(descriptor: int, unknown: list[str]) -> list[str]:
    if not hasattr(os, "listxattr"):  # not Linux
        return []
    try:
        return [name for name in os.listxattr(descriptor) if name not in _NEVER_CARRIED]
    except OSError as error:
        if error.errno not in _HAS_NONE:
            unknown.append("extended attributes")
        return []


def carry_over(wanted: Attributes, descriptor: int) -> tuple[str, ...]:
    """Give a new file, which has its owner and mode already, the rest; return in words what it could not be given.

    Raises: OSError, only where the file itself cannot be asked, or its mode not be set.
    """
    missed = list(wanted.unknown)
    now = attributes_of(descriptor)
    for what, had, has in zip(("owner", "group"), wanted.owner, now.owner, strict=True):
        if had != has:
            missed.append(f"{what} {had}")
    is_other_group = wanted.owner[1] != now.owner[1]
    if is_other_group:
        _set_mode(descriptor, wanted.mode & (~0o070 | (wanted.mode & 0o007) << 3))
    for name, value in wanted.extended.items():
        if name == ACCESS_LIST and is_other_group:
            value = _for_another_group(value)
        if now.extended.get(name) == value:
            continue
        try:
            os.setxattr(descriptor, name, value)
        except OSError:
            missed.append(_in_words(name))
    if _ACCESS_LIST_IN_WORDS in missed:
        _narrow(descriptor, wanted.extended.get(ACCESS_LIST, b""))
    if ACCESS_LIST in now.extended and ACCESS_LIST not in wanted.extended:
        # The folder gives one to each new file; this file is not new to those who use it.
        try:
            os.removexattr(descriptor, ACCESS_LIST)
            _set_mode(descriptor, wanted.mode)
        except OSError:
            missed.append("no access list")
            _set_mode(descriptor, wanted.mode & ~0o070)  # the group's bits bound what such a list gives
    return tuple(missed)


def _narrow(descriptor: int, access_list: bytes) -> None:
    """Let the group have what it had by the list that is lost. The mode shows the list's mask there, which is wider."""
    rights: dict[int, int] = {}  # of a list that cannot be read: nothing
    with suppress(struct.error):
        rights = {tag: right for tag, right, _ in _ACL_ENTRY.iter_unpack(access_list[_ACL_HEADER_BYTES:])}
    group = rights.get(_GROUP_OBJ, 0) & rights.get(_MASK, 0o7)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    _set_mode(descriptor, mode & ~0o070 | (mode & group << 3))


def _for_another_group(access_list: bytes) -> bytes:
    """Return the list with no more for the owning group than for everybody: it is not the group that was meant."""
    try:
        entries = list(_ACL_ENTRY.iter_unpack(access_list[_ACL_HEADER_BYTES:]))
    except struct.error:
        return access_list  # The kernel refuses it.
    others = next((right for tag, right, _ in entries if tag == _OTHER), 0)
    narrowed = [(tag, right & others if tag == _GROUP_OBJ else right, number) for tag, right, number in entries]
    return access_list[:_ACL_HEADER_BYTES] + b"".join(_ACL_ENTRY.pack(*entry) for entry in narrowed)


def _set_mode(descriptor: int, mode: int) -> None:
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        os.fchmod(descriptor, mode)


def _in_words(name: str) -> str:
    return _ACCESS_LIST_IN_WORDS if name == ACCESS_LIST else printable(shortened(name, _NAME_CHARS_MAX))

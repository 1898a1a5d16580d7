"""What one remote says of itself and holds: listed, read and asked for one file at a time.

Decided here: which of a backend's answers are believed, and how the agent's own files are told from others'. Not here: work
that takes long (jobs.py), and what is at a destination (far_side.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from exlab_watch_agent.adapters.transports.rclone.daemon import PARTIAL_SUFFIX, RcloneDaemon
from exlab_watch_agent.adapters.transports.rclone.errors import RcloneError
from exlab_watch_agent.adapters.transports.rclone.requests import Requests
from exlab_watch_agent.adapters.transports.shared.own_files import OWN_FILE_BYTES_MAX, PARTIAL_FOLDER
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.push_plan import MTIME_TOLERANCE_NS
from exlab_watch_agent.errors import FailureKind, TransportError
from exlab_watch_agent.ports import RemoteFile

_PARTIAL = re.compile(r".*\.[0-9a-f]{8}" + re.escape(PARTIAL_SUFFIX), re.DOTALL)
_GLOB = re.compile(r"[\\*?\[\]{},]")
_FRACTION = re.compile(r"\.(\d+)")

Listed = Mapping[str, Any]


class Remote:
    """The destination root of one transport. Methods raise RcloneError, or TransportError where rclone cannot be asked."""

    def __init__(self, daemon: RcloneDaemon) -> None:
        self.daemon = daemon
        self.fs = daemon.fs

    def ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Return rclone's answer to one question."""
        return Requests(self.daemon).call(path, parameters)

    def info(self) -> Mapping[str, Any]:
        """Return what rclone knows of the remote's backend, asked once while it runs."""
        info = self.daemon.once("operations/fsinfo", {"fs": self.fs})
        assert isinstance(info, dict), "rclone answers with an object"
        return info

    def features(self) -> Mapping[str, bool]:
        features: Mapping[str, bool] = self.info()["Features"]
        return features

    def keeps_times(self) -> bool:
        """Whether times are kept well enough to tell something, and are had without another request for each file."""
        return int(self.info()["Precision"]) <= MTIME_TOLERANCE_NS and not self.features().get("SlowModTime")

    def default_encodings(self) -> Mapping[str, str]:
        """Return type of backend → the characters that it spells in another way unless its config says which."""
        providers = self.daemon.once("config/providers", {})["providers"]
        return {
            str(provider["Name"]): str(option["DefaultStr"])
            for provider in providers
            for option in provider["Options"] or ()
            if option["Name"] == "encoding"
        }

    def free_bytes(self) -> int | None:
        """Return how much room is there, None where that cannot be told. Raises nothing."""
        try:
            if not self.features().get("About"):
                return None
            free = self.ask("operations/about", fs=self.fs).get("free")
        except (RcloneError, TransportError):
            return None
        return int(free) if isinstance(free, int) and free >= 0 else None

    def kind_of(self, error: RcloneError, *, needed_bytes: int) -> FailureKind:
        """Return what an error of writing means; some servers have no word for "full", but know how full they are."""
        if error.kind is FailureKind.UNKNOWN:
            free_bytes = self.free_bytes()
            if free_bytes is not None and free_bytes < max(needed_bytes, 1):
                return FailureKind.DESTINATION_FULL
        return error.kind

    def entries(self, path: str, *, recurse: bool, filters: Sequence[str] = ()) -> Sequence[Listed] | None:
        """Return what is in a folder, None where there is none."""
        options = {"recurse": recurse, "noMimeType": True, "noModTime": not self.keeps_times()}
        parameters: dict[str, Any] = {"fs": self.fs, "remote": path, "opt": options}
        if filters:
            parameters["_filter"] = {"FilterRule": list(filters)}
        try:
            found = Requests(self.daemon).call("operations/list", parameters)["list"]
        except RcloneError as error:
            if error.is_missing:
                return None
            raise
        return found or ()

    def files(self, destination: str) -> dict[str, RemoteFile]:
        """Return the data files of a run's folder: path below it → what is listed."""
        found: dict[str, RemoteFile] = {}
        keeps_times = self.keeps_times()
        for item in self.entries(destination, recurse=True, filters=_hidden_in(destination)) or ():
            path = below(str(item["Path"]), destination)
            if item["IsDir"] or is_partial(path):
                continue
            if path in found:
                text = f"{destination!r} at {self.fs} holds two files of the name {path!r}: remove the wrong one there."
                raise TransportError(FailureKind.UNKNOWN, text)
            found[path] = RemoteFile(int(item["Size"]), _nanoseconds(str(item["ModTime"])) if keeps_times else None)
        return found

    def exists(self, path: str) -> bool:
        """Return whether a file or a folder has this name."""
        return self.ask("operations/stat", fs=self.fs, remote=path).get("item") is not None

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """Return at most so many bytes of one file, None where there is none."""
        try:
            with Requests(self.daemon).reading(path) as response:
                return response.read(limit_bytes)
        except RcloneError as error:
            if error.is_missing:
                return None
            raise

    def read_own(self, path: str) -> bytes | None:
        return self.read(path, OWN_FILE_BYTES_MAX)


@contextlib.contextmanager
def unless_missing() -> Iterator[None]:
    try:
        yield
    except RcloneError as error:
        if not error.is_missing:
            raise


def from_to(source_fs: str, source: str, target_fs: str, target: str) -> dict[str, str]:
    return {"srcFs": source_fs, "srcRemote": source, "dstFs": target_fs, "dstRemote": target}


def is_partial(path: str) -> bool:
    """Return whether a path has the form of the names that files have while they are on their way."""
    return _PARTIAL.fullmatch(path.rpartition("/")[2]) is not None


def _hidden_in(destination: str) -> list[str]:
    place = _GLOB.sub(lambda found: f"\\{found[0]}", destination)
    return [f"- /{place}/{CACHE_FOLDER}/**", f"- /{place}/{PARTIAL_FOLDER}/**"]


def below(path: str, destination: str) -> str:
    return path.removeprefix(f"{destination}/")


def _nanoseconds(text: str) -> int:
    """Return nanoseconds since the epoch of an RFC 3339 time with up to nine digits after the second."""
    fraction = _FRACTION.search(text)
    whole = datetime.fromisoformat(_FRACTION.sub("", text))
    return int(whole.timestamp()) * 10**9 + (int(fraction[1].ljust(9, "0")[:9]) if fraction else 0)

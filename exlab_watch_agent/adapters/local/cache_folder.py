"""Where manifests are kept and how the agent's own files get into a run's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exlab_watch_agent.adapters.local.durable import fsync_folder, remove_temporaries, write_atomically, write_in
from exlab_watch_agent.adapters.local.handles import run_folder
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.core.manifest import ExtraFiles
from exlab_watch_agent.core.text import reason, reason_with_name
from exlab_watch_agent.errors import ManifestNotKeptError, RunUnreadableError

_SEPARATORS = frozenset("/\\:\0")
"""What could lead elsewhere on some platform; none of our own names has one."""


class FolderManifestStore:
    """Implements ports.ManifestStore in `<state_dir>/manifests/`: a file a run, and others for names that are wrong or extra."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, job_id: str, data: bytes) -> None:
        try:
            self._save(self._path(job_id), data)
        except OSError as error:
            raise self._not_kept("the manifest", error) from error

    def _not_kept(self, what: str, error: OSError) -> ManifestNotKeptError:
        return ManifestNotKeptError(
            f"{what} cannot be written into {self._folder} ({reason(error)}): make room or repair the disk; "
            "the agent tries again."
        )

    def _save(self, path: Path, data: bytes) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fsync_folder(self._folder.parent)
        if path.exists() and path.read_bytes() == data:
            fsync_folder(self._folder)  # A stop may have come between its placing and its name's durability.
            return
        write_atomically(path, data, mode=0o600)

    def load(self, job_id: str, *, digest: str) -> bytes | None:
        try:
            data = self._path(job_id).read_bytes()
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def note_wrong(self, job_id: str, paths: Sequence[str]) -> None:
        try:
            self._save(self._wrong_path(job_id), json.dumps(sorted(paths)).encode())
        except OSError as error:
            raise self._not_kept("the list of what is wrong on the NAS", error) from error

    def wrong(self, job_id: str) -> frozenset[str]:
        # Without a list nothing makes room, and the next comparison finds again what is wrong: so a damaged list counts as none.
        with suppress(OSError, ValueError, RecursionError):
            found = json.loads(self._wrong_path(job_id).read_bytes())
            if isinstance(found, list):
                return frozenset(name for name in found if isinstance(name, str))
        return frozenset()

    def forget_wrong(self, job_id: str) -> None:
        try:
            self._wrong_path(job_id).unlink()
            fsync_folder(self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._not_kept("the list of what is wrong on the NAS", error) from error

    def keep_extra(self, job_id: str, extra: ExtraFiles) -> None:
        if extra == self.extra_files(job_id):
            return
        data = json.dumps({"files_total": extra.files_total, "paths": extra.paths}).encode()
        try:
            self._save(self._extra_path(job_id), data)
        except OSError as error:
            raise self._not_kept("the list of what is extra on the NAS", error) from error

    def extra_files(self, job_id: str) -> ExtraFiles:
        """Return what was kept last; nothing where nothing was, or it cannot be read: the next comparison says it again."""
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
            found = json.loads(self._extra_path(job_id).read_bytes())
            return ExtraFiles(int(found["files_total"]), tuple(map(str, found["paths"])))
        return ExtraFiles()

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.sha256"

    def _wrong_path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.wrong.json"

    def _extra_path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.extra.json"


class CacheFolderSealer:
    """Implements ports.Sealer."""

    def write(self, run_path: str, relative_path: str, data: bytes) -> None:
        if relative_path in ("", ".", "..") or not _SEPARATORS.isdisjoint(relative_path):
            raise ValueError("only a plain name in the cache folder can be written")
        try:
            with run_folder(run_path) as run, run.step(CACHE_FOLDER) as folder:
                remove_temporaries(folder, of=relative_path)
                write_in(folder, relative_path, data, mode=0o644)
        except OSError as error:
            path = os.path.join(run_path, CACHE_FOLDER, relative_path)
            raise RunUnreadableError(f"{path} cannot be written ({reason_with_name(error)})") from error

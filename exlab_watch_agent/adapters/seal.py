"""Where manifests are kept and how the agent's own files get into a run's cache folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from exlab_watch_agent.adapters.durable import write_atomically
from exlab_watch_agent.core.inventory import CACHE_FOLDER
from exlab_watch_agent.errors import RunUnreadableError


class FolderManifestStore:
    """Implements ports.ManifestStore in `<state_dir>/manifests/`, one file a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, job_id: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(job_id)
        if path.exists() and path.read_bytes() == data:
            return
        write_atomically(path, data, mode=0o600)

    def load(self, job_id: str, *, digest: str) -> bytes | None:
        try:
            data = self._path(job_id).read_bytes()
        except FileNotFoundError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.sha256"


class CacheFolderSealer:
    """Implements ports.Sealer."""

    def write(self, run_path: str, relative_path: str, data: bytes) -> None:
        if os.path.basename(relative_path) != relative_path:
            raise ValueError("only a plain name in the cache folder can be written")
        folder = Path(run_path, CACHE_FOLDER)
        try:
            if folder.is_symlink():
                raise RunUnreadableError(f"{folder} is a link: nothing is written through it")
            write_atomically(folder / relative_path, data, mode=0o644)
        except OSError as error:
            raise RunUnreadableError(f"{folder / relative_path} cannot be written ({error.strerror})") from error

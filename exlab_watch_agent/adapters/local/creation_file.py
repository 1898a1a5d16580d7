"""`creation.json` of a run, changed at two members and put in the old one's place.

Decided here: how the file is locked, and that nobody's save is lost. Not here: how it is read (creation_reading.py), where a
change is spliced into its text (creation_splicing.py), nor how bytes become durable (durable.py).

The file belongs to others: ExLab-Wizard, which takes the same lock, and people with editors, who take none. So it changes
places with ours, and what came out is looked at (exchanging.py), and for a minute more (old_files.py). Where the file system has no
such step, the file is only looked at once more in the last moment before it is replaced: a save within that moment, microseconds
long, is lost.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from exlab_watch_agent.adapters.local import durable, file_lock, json_text
from exlab_watch_agent.adapters.local.attributes import Attributes, attributes_of, carry_over
from exlab_watch_agent.adapters.local.creation_leftovers import clear_leftovers
from exlab_watch_agent.adapters.local.creation_reading import (
    BOM,
    LIMIT_BYTES,
    SHOWN_MAX,
    Document,
    cache_folder_of,
    document_of,
    read_document,
    read_document_in,
    where_is,
)
from exlab_watch_agent.adapters.local.creation_splicing import changed_text
from exlab_watch_agent.adapters.local.exchanging import AnotherSaveError, Held, saved_name, take_place
from exlab_watch_agent.adapters.local.file_lock import LockedError
from exlab_watch_agent.adapters.local.handles import READ_FLAGS, Folder
from exlab_watch_agent.adapters.local.identity import signature_of
from exlab_watch_agent.adapters.local.lock_holders import lock_holder
from exlab_watch_agent.adapters.local.old_files import OldFiles
from exlab_watch_agent.core.inventory import CREATION_FILE, FileSignature
from exlab_watch_agent.core.text import printable, reason, shortened
from exlab_watch_agent.errors import CreationFileError
from exlab_watch_agent.ports import CreationFile, CreationText, SavedCreation
from exlab_watch_agent.statechart import SYNC_STATUSES

LOCK_FILE = f"{CREATION_FILE}.lock"
DEFAULT_LOCK_WAIT_S = 10.0
_WRITE_ATTEMPT_COUNT_MAX = 5


class JsonCreationFiles:
    """Implements ports.CreationFiles on `<run>/.exlab-wizard/creation.json`. Safe to use from several threads.

    `lock_wait_s` bounds the wait for a lock that another program holds. `tell` is given, once for each, what a file has
    that its replacement could not be given, and each save that could not be put back. `old_files` watches those replaced.
    """

    def __init__(
        self,
        *,
        lock_wait_s: float = DEFAULT_LOCK_WAIT_S,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        tell: Callable[[str], None] = lambda _: None,
        old_files: OldFiles | None = None,
    ) -> None:
        self._lock_wait_s = lock_wait_s
        self._new_id = new_id
        self._tell = tell
        self._old_files = old_files or OldFiles()
        self._told: set[str] = set()

    def read(self, run_path: str) -> CreationFile:
        document = read_document(run_path)
        return CreationFile(document.creation, document.signature)

    def set_sync_status(self, run_path: str, sync_status: str) -> SavedCreation:
        return self._change(run_path, lambda document: self._with_status(document, sync_status))

    def _with_status(self, document: Document, sync_status: str) -> str | None:
        """Return the text that says so, None when it is said already."""
        if sync_status not in SYNC_STATUSES:
            raise ValueError(f"unknown sync_status {sync_status!r}")
        if document.creation.sync_status == sync_status:
            return None
        return changed_text(document, self._new_id, sync_status=sync_status)

    def text_with_status(self, run_path: str, sync_status: str) -> CreationText:
        document = read_document(run_path)
        text = self._with_status(document, sync_status)
        data = _encoded(document, document.text if text is None else text, run_path)
        return CreationText(data, document.signature)

    def put_text(self, run_path: str, text: CreationText) -> SavedCreation:
        def change(document: Document) -> str | None:
            if document.signature != text.signature:
                raise _saved_meanwhile(run_path)
            new = text.data.decode().removeprefix(BOM)
            return None if new == document.text else new

        return self._change(run_path, change)

    def append_override(self, run_path: str, entry: Mapping[str, Any]) -> FileSignature:
        """Append `entry`, which must have an `id`; nothing is written when it is there already.

        Raises: CreationFileError, `invalid_content` too when the id belongs to an entry of other content.
        """
        if not isinstance(entry.get("id"), str) or not entry["id"]:
            raise ValueError("an override is appended with its id")
        appended = json_text.parse(json.dumps(dict(entry), allow_nan=False))

        def change(document: Document) -> str | None:
            for existing, known in zip(document.creation.overrides, document.overrides, strict=True):
                if existing.id != entry["id"]:
                    continue
                if json_text.same(known, appended):
                    return None
                raise CreationFileError(
                    f"{where_is(run_path)} has another override with the id {printable(shortened(entry['id'], SHOWN_MAX))}: "
                    "entries are never changed, record yours with a new id.",
                    code="invalid_content",
                    field=f"validation_overrides[{existing.index}]",
                )
            return changed_text(document, self._new_id, entry=dict(entry))

        return self._change(run_path, change).after

    def _change(self, run_path: str, change: Callable[[Document], str | None]) -> SavedCreation:
        """Read, change and write under the lock; `change` returns the new text, None for "it is there already"."""
        with cache_folder_of(run_path) as folder:
            # A file that cannot be read is left alone, without so much as a lock file beside it.
            read_document_in(folder, run_path)
            with self._locked(run_path, folder), _write_errors(run_path):
                return self._change_locked(run_path, folder, change)

    def _change_locked(self, run_path: str, folder: Folder, change: Callable[[Document], str | None]) -> SavedCreation:
        tree = read_document_in(folder, run_path).tree
        clear_leftovers(folder, tree, limit_bytes=LIMIT_BYTES, kept=partial(self._say_kept, run_path))
        for _ in range(_WRITE_ATTEMPT_COUNT_MAX):
            document = read_document_in(folder, run_path)
            text = change(document)
            if text is None:
                durable.sync_folder(folder)  # A stop may have come between our replace and its fsync.
                return SavedCreation(document.signature, document.signature)
            with suppress(AnotherSaveError):
                return SavedCreation(document.signature, self._write(run_path, folder, document, text))
        raise CreationFileError(
            f"{where_is(run_path)} was saved by another program each time the agent wanted to write it: "
            "close the program that keeps it open; the agent tries again.",
            code="locked",
        )

    def _write(self, run_path: str, folder: Folder, document: Document, text: str) -> FileSignature:
        """Put `text` in the place of the file that was read. Raises: AnotherSaveError when another file is there."""
        data = _encoded(document, text, run_path)
        before = _attributes_in(folder, document)
        as_read = Held(_encoded(document, document.text, run_path), before)
        missed: list[str] = []
        replaced: list[int] = []

        def refuse_if_changed() -> None:
            try:
                is_ours_to_replace = signature_of(folder.lstat(CREATION_FILE)) == document.signature
            except FileNotFoundError:
                is_ours_to_replace = False
            if not is_ours_to_replace:
                raise AnotherSaveError

        placed = durable.write_in(
            folder,
            CREATION_FILE,
            data,
            mode=before.mode,
            owner=before.owner,
            finish=lambda descriptor: missed.extend(carry_over(before, descriptor)),
            before_replace=refuse_if_changed,
            take_place=partial(
                take_place,
                as_read=as_read,
                limit_bytes=LIMIT_BYTES,
                kept=partial(self._say_kept, run_path),
                let_go=replaced.append,
            ),
        )
        for descriptor in replaced:
            late = _LateSave(self, run_path, signature_of(placed))
            self._old_files.watch(descriptor, as_read.data, late.take_in)
        self._say_missed(run_path, missed)
        return signature_of(placed)

    def put_back(self, run_path: str, data: bytes, *, over: FileSignature) -> FileSignature:
        """Save what a program wrote into the file that ours replaced, with the status that ours says, if ours is still there.

        Raises: CreationFileError, as if the bytes were the file; `changed` where another is there by now.
        """

        def change(document: Document) -> str | None:
            written = document_of(data, document.status, run_path)
            if document.signature != over:
                raise _saved_meanwhile(run_path)
            text = self._with_status(written, document.creation.sync_status) or written.text
            return None if text == document.text else text

        return self._change(run_path, change).after

    def keep_beside(self, run_path: str, data: bytes) -> None:
        """Keep such a save under a name of its own, and say so."""
        name = saved_name(CREATION_FILE)
        try:
            with cache_folder_of(run_path) as folder:
                durable.write_in(folder, name, data, mode=0o644)
        except (OSError, CreationFileError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            self._tell(
                f"{where_is(run_path)}: a save of another program, which wrote into the file that it had opened before the agent "
                f"wrote, could neither be put back nor kept beside it ({why}): save it there once more."
            )
        else:
            self._say_kept(run_path, name)

    def _say_kept(self, run_path: str, name: str) -> None:
        self._tell(
            f"{where_is(run_path)}: a save of another program, which came between two others or was cut off by a stop, is kept "
            f"beside it as {name}: compare the two, take over what is missing, and remove that file."
        )

    def _say_missed(self, run_path: str, missed: list[str]) -> None:
        new = [what for what in missed if what not in self._told]
        self._told.update(new)
        if new:
            self._tell(
                f"{where_is(run_path)} could not keep this when the agent wrote it: {', '.join(new)}. "
                "Look whether those who edit it still may; it is said once and not for each run."
            )

    @contextmanager
    def _locked(self, run_path: str, folder: Folder) -> Iterator[None]:
        try:
            lock = file_lock.take(folder, LOCK_FILE, wait_s=self._lock_wait_s)
        except LockedError:
            who = lock_holder(folder, LOCK_FILE)
            held = f" ({who})" if who else ""
            raise CreationFileError(
                f"{where_is(run_path)} has been locked by another program for {self._lock_wait_s:g} s{held}: close the window "
                "of ExLab-Wizard or the command that is changing this run, or end that program; the agent tries again.",
                code="locked",
            ) from None
        except (OSError, NotImplementedError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise CreationFileError(
                f"{where_is(run_path)} cannot be locked ({why}): "
                f"let the agent's account write {LOCK_FILE} and the folder it is in.",
                code="unwritable",
            ) from error
        try:
            yield
        finally:
            lock.release()


class _LateSave:
    """What becomes of bytes that a program writes into a file that has no name any more, since ours has its place."""

    def __init__(self, files: JsonCreationFiles, run_path: str, placed: FileSignature) -> None:
        self._files = files
        self._run_path = run_path
        self._placed = placed

    def take_in(self, data: bytes, is_last: bool) -> bool:
        """Put it back; what cannot be is kept beside at the last look, and looked at again before. Of nothing, nothing is kept."""
        try:
            self._placed = self._files.put_back(self._run_path, data, over=self._placed)
        except CreationFileError:
            if is_last and data:
                self._files.keep_beside(self._run_path, data)
            return is_last
        return True


def _saved_meanwhile(run_path: str) -> CreationFileError:
    return CreationFileError(
        f"{where_is(run_path)} was saved by another program meanwhile; the agent tries again.", code="changed"
    )


def _attributes_in(folder: Folder, document: Document) -> Attributes:
    """Return what the file that was read has beside its bytes. Raises: AnotherSaveError when another is there."""
    try:
        descriptor = folder.open(CREATION_FILE, READ_FLAGS)
    except FileNotFoundError:
        raise AnotherSaveError from None
    try:
        if signature_of(os.fstat(descriptor)) != document.signature:
            raise AnotherSaveError
        return attributes_of(descriptor)
    finally:
        os.close(descriptor)


def _encoded(document: Document, text: str, run_path: str) -> bytes:
    """Return the bytes of the text that is to replace the document. Raises: CreationFileError when they are too many."""
    data = ((BOM if document.has_bom else "") + text).encode()
    if len(data) > LIMIT_BYTES:
        raise CreationFileError(
            f"{where_is(run_path)} would become larger than {LIMIT_BYTES} bytes: remove what does not belong into it.",
            code="invalid_content",
        )
    return data


@contextmanager
def _write_errors(run_path: str) -> Iterator[None]:
    """The border for the errors of writing."""
    try:
        yield
    except OSError as error:
        raise CreationFileError(
            f"{where_is(run_path)} cannot be written ({reason(error)}): "
            "make room on the disk and let the agent's account write into its folder.",
            code="unwritable",
        ) from error

"""Names and paths as Windows has them, on a faked Windows disk: separators, drives, case that is kept and ignored.

Faked is only what a path is; share modes, reparse points and durability are not, and nothing here says anything of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem, OSType
from pyfakefs.fake_filesystem_unittest import Patcher

from exlab_watch_agent.adapters.local import handles, scanner
from exlab_watch_agent.core.discovery import destination_of
from exlab_watch_agent.core.policy import EquipmentPolicy, Layout, MountedPathTarget
from exlab_watch_agent.errors import RootUnavailableError

EQUIPMENT = EquipmentPolicy("SCOPE_01", "Scope", "D:\\lab", MountedPathTarget("N:\\nas"))
RUN = "D:\\lab\\SCOPE_01\\PROJ-0042 Cortex pilot\\Runs\\Run_2026-04-17T14-32"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFilesystem]:
    with Patcher() as patcher:
        assert patcher.fs is not None
        patcher.fs.os = OSType.WINDOWS
        monkeypatch.setattr(handles, "_BY_HANDLE", False)
        yield patcher.fs


def test_a_run_below_a_drive_is_found_and_goes_to_a_posix_destination(disk: FakeFilesystem) -> None:
    disk.create_file(RUN + "\\.exlab-wizard\\creation.json", contents="{}")
    disk.create_file("D:\\lab\\SCOPE_01\\PROJ-0042 Cortex pilot\\Runs\\notes.txt")
    (seen,) = scanner.DiskRunScanner().scan(EQUIPMENT)
    assert seen.place.run_path.replace("/", "\\") == RUN
    assert seen.creation_signature is not None
    assert destination_of(seen.place, Layout.MIRROR) == "PROJ-0042 Cortex pilot/Runs/Run_2026-04-17T14-32"
    assert destination_of(seen.place, Layout.FLAT) == "Run_2026-04-17T14-32"


def test_a_drive_that_is_not_there_is_a_root_that_waits(disk: FakeFilesystem) -> None:
    with pytest.raises(RootUnavailableError, match="not there"):
        scanner.DiskRunScanner().scan(EQUIPMENT)

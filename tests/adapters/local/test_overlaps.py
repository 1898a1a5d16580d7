"""What only the disk shows: a destination that leads back to the local runs."""

from __future__ import annotations

from pathlib import Path

from exlab_watch_agent.adapters.local.overlaps import linked_overlaps
from exlab_watch_agent.core.policy import CompletenessSignal, EquipmentPolicy, MountedPathTarget, Policy


def test_a_destination_that_is_the_runs_folder_behind_a_link_is_found_on_the_disk(tmp_path: Path) -> None:
    runs = tmp_path / "lab" / "CONFOCAL_01"
    runs.mkdir(parents=True)
    (tmp_path / "nas").symlink_to(runs)
    (tmp_path / "other").mkdir()

    def overlaps(path: Path) -> tuple[str, ...]:
        equipment = EquipmentPolicy(
            equipment_id="CONFOCAL_01",
            label="CONFOCAL_01",
            local_root=str(tmp_path / "lab"),
            target=MountedPathTarget(path=str(path)),
            signal=CompletenessSignal.CREATION_JSON,
        )
        return linked_overlaps(Policy(equipment=(equipment,)))

    assert len(overlaps(tmp_path / "nas")) == 1
    assert len(overlaps(tmp_path / "nas" / "below")) == 1
    assert overlaps(tmp_path / "other") == ()
    assert overlaps(tmp_path / "not-mounted-yet") == ()
    (tmp_path / "dangling").symlink_to(runs / "not-there-yet")
    assert len(overlaps(tmp_path / "dangling")) == 1
    runs.rmdir()
    assert len(overlaps(tmp_path / "dangling")) == 1

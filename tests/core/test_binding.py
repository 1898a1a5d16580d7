"""Which root is bound without a question: every case that there is, and the words for those that are not."""

from __future__ import annotations

from itertools import product

import pytest

from exlab_watch_agent.core.binding import (
    AUTOMOUNT,
    Below,
    BelowChange,
    Binding,
    Nature,
    RootStanding,
    accepted,
    another_root,
    below_change,
    first_folder,
    is_bound_without_asking,
    marker_key,
    mount_away,
    split_key,
    standing_of,
)

HERE, THERE = "/mnt/nas", "nas.lab:/volume1"
OURS, OTHER = "a" * 32, "b" * 32
NOBODY = Binding(OURS, "", HERE)
SOMEBODY = Binding(OURS, "asmith", HERE)
BOUND, UNACCEPTED, RESPELLED = RootStanding.BOUND, RootStanding.UNACCEPTED, RootStanding.RESPELLED
UNMARKED, ANOTHER, CHANGED, FIRST = (
    RootStanding.UNMARKED,
    RootStanding.ANOTHER,
    RootStanding.CHANGED,
    RootStanding.FIRST,
)

# (what was bound, the root that is configured, the marker found there) → what that root is
STANDINGS = {
    (None, HERE, None): FIRST,
    (None, HERE, OURS): FIRST,
    (None, HERE, OTHER): FIRST,
    (None, THERE, None): FIRST,
    (None, THERE, OURS): FIRST,
    (None, THERE, OTHER): FIRST,
    (NOBODY, HERE, None): UNMARKED,
    (NOBODY, HERE, OURS): UNACCEPTED,
    (NOBODY, HERE, OTHER): ANOTHER,
    (NOBODY, THERE, None): CHANGED,
    (NOBODY, THERE, OURS): UNACCEPTED,
    (NOBODY, THERE, OTHER): CHANGED,
    (SOMEBODY, HERE, None): UNMARKED,
    (SOMEBODY, HERE, OURS): BOUND,
    (SOMEBODY, HERE, OTHER): ANOTHER,
    (SOMEBODY, THERE, None): CHANGED,
    (SOMEBODY, THERE, OURS): RESPELLED,
    (SOMEBODY, THERE, OTHER): CHANGED,
}


def test_the_table_has_every_case() -> None:
    assert set(STANDINGS) == set(product((None, NOBODY, SOMEBODY), (HERE, THERE), (None, OURS, OTHER)))
    assert set(STANDINGS.values()) == set(RootStanding)


@pytest.mark.parametrize(("case", "standing"), STANDINGS.items())
def test_what_a_root_is_follows_from_what_was_bound_its_spelling_and_its_marker(
    case: tuple[Binding | None, str, str | None], standing: RootStanding
) -> None:
    known, spelling, found = case
    assert standing_of(known, spelling=spelling, found=found) is standing
    assert (accepted(known, spelling) is not None) == (known is SOMEBODY and spelling == HERE)


@pytest.mark.parametrize("standing", list(RootStanding))
@pytest.mark.parametrize("elsewhere", ["", "nfs4 is a network file system"])
def test_a_root_is_bound_without_asking_by_its_known_marker_or_at_first_by_what_it_lies_on(
    standing: RootStanding, elsewhere: str
) -> None:
    expected = standing in (BOUND, RESPELLED) or (standing in (FIRST, UNACCEPTED) and bool(elsewhere))
    assert is_bound_without_asking(standing, Nature("nfs4", "nas:/a", elsewhere)) is expected


def test_another_root_is_told_with_the_very_command_and_by_what_it_is() -> None:
    at_the_same_place = another_root("EQ", HERE, SOMEBODY)
    assert at_the_same_place.wait.code == "nas_unreachable"
    by_the_config = another_root("EQ", THERE, SOMEBODY)
    assert by_the_config.wait.code == "destination_unbound"
    assert HERE in str(by_the_config)
    for error in (at_the_same_place, by_the_config):
        assert error.wait.command == 'exlab-watch-agent bind EQ --replace --reason "..."'
        assert f"`{error.wait.command}`" in str(error)


@pytest.mark.parametrize("spelling", [HERE, "nas:/with blank", ""])
def test_a_key_says_equipment_and_spelling(spelling: str) -> None:
    assert split_key(marker_key("EQ_1", spelling)) == ("EQ_1", spelling)


# --- mounts below the root ----------------------------------------------------------------------------------------------

OWN, ZFS, OTHER_ZFS, AUTO = Below(), Below("zfs", "tank/a"), Below("zfs", "tank/b"), Below(AUTOMOUNT, "/etc/auto.nas")
LEARN, AWAY, NOTHING = BelowChange.LEARN, BelowChange.AWAY, BelowChange.NOTHING

# (the mount that is known, what is there now) → what follows
CHANGES = {
    (None, None): NOTHING,
    (None, OWN): NOTHING,
    (None, ZFS): LEARN,
    (None, OTHER_ZFS): LEARN,
    (None, AUTO): AWAY,
    (ZFS, None): NOTHING,
    (ZFS, OWN): AWAY,
    (ZFS, ZFS): NOTHING,
    (ZFS, OTHER_ZFS): LEARN,
    (ZFS, AUTO): AWAY,
}


@pytest.mark.parametrize(("case", "change"), CHANGES.items())
def test_a_mount_that_became_a_plain_folder_is_away_and_one_that_is_new_is_learned(
    case: tuple[Below | None, Below | None], change: BelowChange
) -> None:
    known, now = case
    assert below_change(known, now) is change


def test_the_table_of_mounts_has_every_case() -> None:
    assert set(CHANGES) == set(product((None, ZFS), (None, OWN, ZFS, OTHER_ZFS, AUTO)))


def test_a_mount_that_is_away_is_told_with_what_it_was_and_both_ways_out() -> None:
    text = str(mount_away("EQ", HERE, "PROJ-0042", ZFS))
    assert "PROJ-0042" in text
    assert "zfs tank/a" in text
    assert "Mount it again" in text
    assert 'bind EQ --replace --reason "..."' in text
    assert "automount" in str(mount_away("EQ", HERE, "PROJ-0042", None))


@pytest.mark.parametrize(("destination", "first"), [("P/Runs/Run_1", "P"), ("Run_1", "Run_1"), ("", "")])
def test_the_first_folder_on_the_way_to_a_copy(destination: str, first: str) -> None:
    assert first_folder(destination) == first

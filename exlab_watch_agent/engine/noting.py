"""What a look at a run's folder has the trail say beside the run's moves: its overrides, and that it is not gone any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.facts import OverrideFound, OverridesRemoved, ProblemDismissed
from exlab_watch_agent.core.overrides import dangling_tombstones
from exlab_watch_agent.core.record import RunRecord
from exlab_watch_agent.core.run_problems import gone
from exlab_watch_agent.core.text import utc_text
from exlab_watch_agent.engine.bench import Bench
from exlab_watch_agent.engine.commit import Commit

log = logging.getLogger(__name__)


def note_overrides(commit: Commit, record: RunRecord, overrides: Sequence[OverrideEntry]) -> RunRecord:
    """Put each entry that is new into the trail, or that there are fewer; return the record that counts them."""
    before = record.overrides_seen
    if len(overrides) == before:
        return record
    for tombstone in dangling_tombstones(tuple(overrides)):
        if tombstone.index >= before:
            log.warning("%s: a tombstone revokes %s, which is not there", record.run_path, tombstone.revokes)
    saved = replace(record, overrides_seen=len(overrides))
    for entry in overrides[before:]:
        commit.save(saved, OverrideFound(entry), operator=entry.operator or None)
    if len(overrides) < before:
        commit.save(saved, OverridesRemoved(before, len(overrides)))
    return saved


def note_that_it_is_here(bench: Bench, record: RunRecord) -> None:
    """End what an operator said of a run that was gone: should it be gone once more, that is news."""
    problem, now = gone(record), bench.clock.now()
    said = bench.commit.store.dismissals.get(problem.id)
    if said is not None and said.holds(problem, now=now):
        log.info("%s was gone and forgotten, and is here again", record.run_path)
        ended = ProblemDismissed(problem.id, said.by, said.reason, until=utc_text(now), subject=record.run_path)
        bench.commit.note(ended)

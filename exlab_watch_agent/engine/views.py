"""What people are told of runs and folders beside their records: immutable values that other threads may read at any time.

`Views.now` is swapped for a new one with every change; whoever has read one has it whole. Not persisted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from rpds import HashTrieMap

from exlab_watch_agent.core.gate import Finding, blocking
from exlab_watch_agent.core.record import RunRecord

UNREADABLE_LOOKS_TOLD = 3
"""A file that another program holds for a moment is nobody's problem; what three looks cannot read is."""


@dataclass(frozen=True, slots=True)
class RunView:
    """What the last look at a run said.

    `reason`: why it is where it is; `problem`: what keeps it from its goal; `unreadable`: which part of it cannot be read
    and why, and `unreadable_looks`: how many looks in a row said so, counted up to those after which it is told.
    """

    reason: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    unreadable: str = ""
    unreadable_looks: int = 0

    @property
    def has_news(self) -> bool:
        """Whether there is anything in it that a person should know of a run that rests."""
        return bool(self.problem or self.unreadable or blocking(self.findings))


NOTHING = RunView()


@dataclass(frozen=True)
class Told:
    """`runs`: job id → what is told of a run; a run that rests, and of which there is nothing to tell, has none.

    `folders`: path → what keeps a folder from being a usable run.
    """

    runs: HashTrieMap[str, RunView] = field(default_factory=HashTrieMap)
    folders: HashTrieMap[str, str] = field(default_factory=HashTrieMap)

    def of(self, record: RunRecord) -> RunView:
        return self.runs.get(record.job_id, NOTHING)


class Views:
    """Written by the loop's thread only."""

    def __init__(self) -> None:
        self.now = Told()

    def of(self, job_id: str) -> RunView:
        return self.now.runs.get(job_id, NOTHING)

    def tell(self, job_id: str, view: RunView) -> None:
        """Say this of a run from now on."""
        if self.now.runs.get(job_id) != view:
            self.now = replace(self.now, runs=self.now.runs.insert(job_id, view))

    def forget(self, job_id: str) -> None:
        if job_id in self.now.runs:
            self.now = replace(self.now, runs=self.now.runs.remove(job_id))

    def tell_of_folder(self, path: str, problem: str | None) -> None:
        """Say what keeps a folder from being a usable run; None: nothing does."""
        if self.now.folders.get(path) == problem:
            return
        folders = self.now.folders
        self.now = replace(self.now, folders=folders.remove(path) if problem is None else folders.insert(path, problem))

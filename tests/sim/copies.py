"""What is true of the copies at the NAS, whoever made them: what was proven there and sealed, and whether that is still so.

Told from the bytes in the world, never from a record or a claim. What one agent does with its own runs is oracle.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from exlab_watch_agent.adapters.transports.shared.own_files import claim_in
from exlab_watch_agent.core.claim import Claim
from exlab_watch_agent.core.effects import CarryCache, Verify, Work
from tests.sim.world import Nas, Violation, World

Key = tuple[str, str]
"""The name of a NAS, and a destination below it."""
Files = Mapping[str, bytes]

claim_of_bytes = lru_cache(maxsize=4096)(claim_in)


def holder_at(nas: Nas, destination: str) -> Claim | None:
    """Whoever claims the destination."""
    data = nas.claim_at(destination)
    return claim_of_bytes(data) if data is not None else None


@dataclass(frozen=True)
class SealedCopy:
    """A copy whose seal is durable in the trail of the agent that made it: its job, the digest of the manifest, the data."""

    job_id: str
    digest: str
    files: Files


class Copies:
    """What all agents proved, by the truth of the world."""

    def __init__(self, nas: Mapping[str, Nas]) -> None:
        self._nas = {held.name: held for held in nas.values()}
        self.proven: dict[str, set[str]] = {}
        self.sealed: dict[Key, SealedCopy] = {}
        self._sealed_as: dict[tuple[str, str, str], Files] = {}
        self._last_proven: dict[Key, Files] = {}
        self._unknown: set[Key] = set()

    def prove(self, job_id: str, nas: Nas, destination: str, digest: str, files: Files) -> None:
        """Both sides were equal, at one moment, and this is what they were."""
        self.proven.setdefault(job_id, set()).add(digest)
        self._unknown.discard((nas.name, destination))
        self._last_proven[nas.name, destination] = files

    def seal(self, job_id: str, nas: Nas, destination: str, digest: str) -> None:
        key = nas.name, destination
        self.sealed[key] = SealedCopy(job_id, digest, self._last_proven[key])
        self._sealed_as[*key, digest] = self._last_proven[key]

    def give_up(self, nas: Nas, destination: str) -> None:
        """An operator said that the copy which was sealed there counts no more."""
        self.sealed.pop((nas.name, destination), None)

    def nas_was_changed(self, nas: Nas) -> None:
        """Another copy of it is mounted: what is there now is what was there then, and no agent was told."""
        self._unknown |= {key for key in self._last_proven if key[0] == nas.name}

    def is_right(self, nas: Nas, effect: Work | CarryCache) -> bool:
        """Whether the copy of this verify was sealed as that expects, by whomever, and is that now.

        A twin of the agent may have given it up meanwhile: what is there is what it was all the same.
        """
        if not isinstance(effect, Verify):
            return False
        files = self._sealed_as.get((nas.name, effect.destination, effect.manifest_digest))
        real = nas.below(effect.destination)
        return files is not None and all(path in real and real[path].data == data for path, data in files.items())

    def is_unknown(self, nas: Nas, destination: str) -> bool:
        return (nas.name, destination) in self._unknown

    # --- at every step -----------------------------------------------------------------------------------------------

    def check(self, worlds: Iterable[World]) -> None:
        """For every file of every sealed run there is a local original, or a copy that can be read; no copy says `synced` that is
        not what was proven; and nothing that ever was on a NAS is gone."""
        here = {
            (name, file.data) for world in worlds for run in world.runs.values() for name, file in run.files.items()
        }
        for (nas_name, destination), sealed in self.sealed.items():
            nas = self._nas[nas_name]
            for name, data in sealed.files.items():
                path = f"{destination}/{name}"
                if not nas.has(path, data) and (name, data) not in here:
                    raise Violation(f"{path}, proven and sealed, is nowhere any more")
        for nas_name, destination in self._last_proven:
            self._check_word(self._nas[nas_name], destination)
        for nas in self._nas.values():
            if lost := nas.lost():
                raise Violation(f"content was lost on the NAS: {lost}")
            for destination, authors in nas.owners.items():
                if len(authors) > 1:
                    raise Violation(f"{destination} holds data of the runs of {sorted(authors)}")

    def _check_word(self, nas: Nas, destination: str) -> None:
        if nas.creation_status(destination) != "synced" or self.is_unknown(nas, destination):
            return
        for name, data in self._last_proven[nas.name, destination].items():
            path = f"{destination}/{name}"
            file = nas.real.get(path)
            if (file is None or file.data != data) and not nas.is_harmed(path, data):
                raise Violation(f"{destination} says synced, and {name} is not what was proven")

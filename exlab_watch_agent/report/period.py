"""What a period was like for one instrument or for all, as JSON and as one HTML page that needs no script and prints.

Decided here: what is told of a period, and in which order. Outages alone do not come from the trail, which has none, but from
the agent's diary of the last week. Not here: what counts as what (tally.py), and where it comes from (app/exporting.py). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exlab_watch_agent.core.passes import HowRead
from exlab_watch_agent.core.text import counted, unicode_text, utc_text
from exlab_watch_agent.core.week import KEPT_FOR, Happening
from exlab_watch_agent.report.pages import ChainSummary, digest_of, page, script_json
from exlab_watch_agent.report.tally import ROWS_MAX, Here, PeriodTally, summed

PERIOD_SCHEMA = 1
NOT_PROVEN = (
    "That a copy is right now: a proof says when both sides were read.",
    "That nobody wrote the audit trail anew: its chain has no key. Only what the NAS knows of it speaks against that.",
    "The times: they are those of this PC's clock.",
    "Outages further back than a week: the agent's diary forgets them. What they kept from going on is in the trail.",
)


@dataclass(frozen=True, slots=True)
class Period:
    """All that is told of a period. `at`: its end, or now, whichever is earlier. `ended`: outages that the diary knows.

    `waiting`: instrument → since when, and why, its destination cannot be used now; only said of a period that has not ended.
    """

    made_at: datetime
    made_by: str
    host: str
    program: Mapping[str, str]
    at: datetime
    tally: PeriodTally
    ended: Sequence[Happening]
    waiting: Mapping[str, tuple[datetime, str]]
    chain: ChainSummary
    script: str

    def content(self) -> dict[str, Any]:
        """Return everything but the digest that names it."""
        tally = self.tally
        by_equipment = {name: tally.counts[name] for name in sorted(tally.counts) if name}
        return {
            "schema": PERIOD_SCHEMA,
            "made_at": utc_text(self.made_at),
            "made_by": self.made_by,
            "host": self.host,
            "program": dict(self.program),
            "period": tally.bounds.to_json(),
            "trail": {
                "lines": sum(tally.kinds.values()),
                "first_seq": tally.first[0] if tally.first else None,
                "first_at": tally.first[1] if tally.first else None,
                "last_seq": tally.last[0] if tally.last else None,
                "last_at": tally.last[1] if tally.last else None,
                "kinds": dict(sorted(tally.kinds.items())),
            },
            "equipment": [{"equipment_id": name, **counts.to_json()} for name, counts in by_equipment.items()],
            "total": summed(list(tally.counts.values())).to_json(),
            "coverage": tally.coverage(self.at),
            "passes_read_by": dict(sorted(tally.read_by.items())),
            "incidents": {**tally.incidents.to_json(), "open": len(tally.open_incidents)},
            "overrides": tally.overrides.to_json(),
            "deletions": tally.deletions.to_json(),
            "stops": tally.stops.to_json(),
            "failed_attempts": [
                {"equipment_id": equipment_id, "kind": kind, "total": total}
                for (equipment_id, kind), total in sorted(tally.failures.items())
            ],
            "outages": {
                "known_since": utc_text(self.made_at - KEPT_FOR),
                "ended": [
                    {"at": utc_text(one.at), "equipment_id": one.equipment_id, "sentence": unicode_text(one.sentence)}
                    for one in self.ended
                ],
                "now": [
                    {"equipment_id": name, "since": utc_text(since), "sentence": unicode_text(why)}
                    for name, (since, why) in sorted(self.waiting.items())
                ],
            },
            "commands": tally.commands.to_json(),
            "others": tally.others.to_json(),
            "charts": _seen_json("chart", tally.charts),
            "hosts": _seen_json("host", tally.hosts),
            "chain": self.chain.to_json(),
            "not_proven": list(NOT_PROVEN),
            "verify_script": script_json(self.script),
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        content = self.content()
        return {**content, "digest": digest_of(content)}

    def to_html(self, *, how_read: Mapping[HowRead, str]) -> str:
        content = self.content()
        return page(
            "period.html.j2",
            content,
            verdict=self.verdict(content),
            is_good=self.is_good(content),
            how_read={way.value: words for way, words in how_read.items()},
            ages=_ages(content["coverage"]["by_age"]),
            rows_max=ROWS_MAX,
        )

    def is_good(self, content: Mapping[str, Any]) -> bool:
        """Return whether nothing in the summary is left to be explained."""
        coverage = content["coverage"]
        is_all_proven = coverage["proven"] == coverage["runs"]
        return is_all_proven and not content["incidents"]["open"] and self.chain.is_whole

    def verdict(self, content: Mapping[str, Any]) -> list[str]:
        """Return in sentences what matters most."""
        coverage, total = content["coverage"], content["total"]
        oldest = coverage["oldest"][0]["verified_at"] if coverage["oldest"] else None
        first = total["runs_sealed"]
        said = [
            f"{counted(total['runs_found'], 'run')} came, {first} {_was(first)} proven for the first time.",
            f"At {coverage['at']}, {coverage['proven']} of {counted(coverage['runs'], 'known run')} "
            f"{'is' if coverage['proven'] == 1 else 'are'} proven"
            + (f"; the oldest proof is of {oldest}." if oldest else "."),
        ]
        if total["incidents"] or content["incidents"]["open"]:
            still = f"; {content['incidents']['open']} not healed" if content["incidents"]["open"] else ", all healed"
            said.append(f"{counted(total['incidents'], 'incident')} within the period{still}.")
        if not self.chain.is_whole:
            said.append("The audit trail is not as it was written: see below.")
        return said


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _ages(by_age: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many proofs are how old, in words."""
    words, before = [], 0
    for one in by_age:
        days = one["within_days"]
        said = f"more than {counted(before, 'day')}" if days is None else f"{before} to {counted(days, 'day')}"
        words.append({"words": said, "runs": one["runs"]})
        before = days or before
    return words


def _seen_json(name: str, seen: Mapping[str, tuple[Here, Here]]) -> list[dict[str, Any]]:
    return [
        {name: unicode_text(word), "first_seq": first[0], "last_seq": last[0], "first_at": first[1]}
        for word, (first, last) in seen.items()
    ]

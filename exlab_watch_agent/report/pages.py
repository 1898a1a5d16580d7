"""What every exported report shares: the template engine, the digest that names a content, the chain, the script that checks it.

Decided here: how a text from outside gets into a page, and how a report names itself. Not here: what a report says. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from exlab_watch_agent.core.text import counted, human_bytes, printable

SCRIPT_NAME = "verify_trail.py"


def script_elsewhere(script: str) -> str:
    """Return which script checks the trail, for forms of somebody else, which have no place for a program."""
    digest = hashlib.sha256(script.encode()).hexdigest()
    return (
        f"{SCRIPT_NAME} (SHA-256 {digest}) checks the audit trail: `audit export --run RUN --format json` holds it, "
        "as do html, bagit and rocrate"
    )


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """What a check of the whole trail said. `known_beside`, `known_outside`: how many positions of it agree that are known in
    its own folder, and on the NAS. `unasked`: in words, who was not asked. `against`: in words, what is wrong."""

    lines: int
    last_seq: int
    last_blake3: str
    known_beside: int
    known_outside: int
    unasked: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return not self.against

    def to_json(self) -> dict[str, Any]:
        return {
            "is_whole": self.is_whole,
            "lines": self.lines,
            "last_seq": self.last_seq,
            "last_blake3": self.last_blake3,
            "known_beside": self.known_beside,
            "known_outside": self.known_outside,
            "unasked": list(self.unasked),
            "against": list(self.against),
        }


def script_json(script: str) -> dict[str, str]:
    """Return the script that checks the trail by itself, as a member of every report."""
    return {"name": SCRIPT_NAME, "sha256": hashlib.sha256(script.encode()).hexdigest(), "text": script}


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a report's content as canonical JSON: sorted keys, no blanks, ASCII."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def page(template: str, content: Mapping[str, Any], **more: object) -> str:
    """Return a report's content as one HTML page, which carries the digest of the content."""
    return _environment().get_template(template).render(content=content, digest=digest_of(content), **more)


def grouped(digest: str) -> list[str]:
    """Return a digest in groups of eight digits, between which a line may be broken."""
    return [digest[begin : begin + 8] for begin in range(0, len(digest), 8)]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("exlab_watch_agent", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters["amount"] = human_bytes
    environment.filters["grouped"] = grouped
    environment.filters["counted"] = counted
    environment.filters["verbatim"] = _verbatim
    return environment


def _shown(value: object) -> object:
    """Return what an expression of the template gives, with all that is no plain text in it spelled out."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _verbatim(text: str) -> Markup:
    """Return a text of our own, of several lines, so that it can be copied from the page as it is."""
    return escape(text)

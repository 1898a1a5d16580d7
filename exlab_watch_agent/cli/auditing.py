"""`audit verify` and `audit log`: is the trail whole, and what does it say."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

from exlab_watch_agent.app.auditing import Audited, Wanted, search, verify_folder, verify_here
from exlab_watch_agent.app.site import Site
from exlab_watch_agent.cli.options import span_in
from exlab_watch_agent.cli.saying import say, say_aside, say_csv
from exlab_watch_agent.core.facts import KINDS
from exlab_watch_agent.core.overrides import parse_time
from exlab_watch_agent.core.text import counted, utc_text_exact
from exlab_watch_agent.errors import ConfigError, ExitCode
from exlab_watch_agent.report.trail import COLUMNS, row_of

BREAKS_SHOWN_MAX = 5
KINDS_OF_LINES = KINDS | {"segment_opened", "trail_damaged"}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def verify(site: Site, folder: Path | None) -> int:
    """Say whether every line chains, and whether all who know a line of the trail know the same one."""
    if folder is None:
        site.require_state_dir()
    found = verify_here(site) if folder is None else verify_folder(folder)
    chain = found.chain
    say(
        f"{chain.folder}: {counted(chain.lines, 'line')} in {counted(chain.segments, 'segment')}, from {chain.began_at[:19]}Z to "
        f"{chain.ended_at[:19]}Z, the last is line {chain.head.seq} with BLAKE3 {chain.head.digest}"
    )
    broken = [f"{one.found} (an agent noted this when it found it)" for one in chain.accounted]
    broken += [one.found for one in chain.breaks]
    for sentence in (*broken[:BREAKS_SHOWN_MAX], *chain.against[:BREAKS_SHOWN_MAX]):
        say(f"BROKEN  {sentence}")
    more = max(0, len(broken) - BREAKS_SHOWN_MAX) + max(0, len(chain.against) - BREAKS_SHOWN_MAX)
    if more:
        say(f"BROKEN  and {more} more such findings")
    for sentence in found.unasked:
        say(f"not asked  {sentence}")
    if chain.is_torn:
        say("behind the last line there is half of one, which a crash left or an agent is writing: it never counted")
    say(_verdict(found))
    return ExitCode.FINE if chain.is_whole else ExitCode.FAILED


def _verdict(found: Audited) -> str:
    if not found.chain.is_whole:
        return "the trail is not as it was written: keep this folder as it is, and compare it with its backups and with the NAS"
    agree = [
        f"{number} {where}" for number, where in ((found.beside, "beside it"), (found.outside, "on the NAS")) if number
    ]
    said = f"every line chains; positions of it that others know and that agree: {', '.join(agree) or 'none'}"
    if not found.outside:
        said += "; nobody outside the folder was asked, so that it was put back to an older copy would not show"
    return said


def log(
    site: Site,
    *,
    run: str | None,
    equipment: str | None,
    operator: str | None,
    kind: str | None,
    since: str | None,
    until: str | None,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Print the lines that are wanted: a table, CSV, or JSON lines as they are in the trail."""
    site.require_state_dir()
    if as_csv and as_json:
        raise ConfigError("Give --csv or --json, not both.")
    from_then, to_then = span_of(since, until, site.now())
    wanted = Wanted(
        job_id=_job_of(site, run),
        equipment_id=equipment or "",
        operator=operator or "",
        kind=kind or "",
        since=from_then,
        until=to_then,
    )
    shown = 0
    for fact in search(site, wanted):
        if as_json:
            say(json.dumps(fact, ensure_ascii=True))
        else:
            cells = row_of(fact).cells()
            if as_csv:
                if not shown:
                    say_csv(COLUMNS)
                say_csv(cells)
            else:
                say("  ".join(cell for cell in cells if cell))
        shown += 1
    if not shown:
        say_aside(f"no line of the trail says that{_what_could_be_asked(site, wanted)}")
    return ExitCode.FINE


def _job_of(site: Site, word: str | None) -> str:
    if word is None:
        return ""
    _, record = site.find_run(word)
    if record is None:
        raise ConfigError(f"{word} is not known yet, so the trail says nothing of it.")
    return record.job_id


def _what_could_be_asked(site: Site, wanted: Wanted) -> str:
    """Return, for a word that was probably mistyped, those that are known."""
    instruments = {record.equipment_id for record in site.records.values()} | site.roots.keys()
    if wanted.kind and wanted.kind not in KINDS_OF_LINES:
        return f"; kinds of lines are: {', '.join(sorted(KINDS_OF_LINES))}"
    if wanted.equipment_id and wanted.equipment_id not in instruments:
        return f"; instruments that are known are: {', '.join(sorted(instruments)) or 'none'}"
    return ""


def span_of(since: str | None, until: str | None, now: datetime) -> tuple[str, str]:
    """Return both ends of a time as the trail writes them, empty where none is given. Raises: ConfigError."""
    found = moment_of(since, now, "--since"), moment_of(until, now, "--until", is_end=True)
    if all(found) and found[0] >= found[1]:
        raise ConfigError("--until must be later than --since.")
    return found


def moment_of(text: str | None, now: datetime, option: str, *, is_end: bool = False) -> str:
    """Return a time as the trail writes it; empty for none."""
    moment = past_moment_of(text, now, option, is_end=is_end)
    return utc_text_exact(moment) if moment is not None else ""


def past_moment_of(text: str | None, now: datetime, option: str, *, is_end: bool = False) -> datetime | None:
    """Return the time that is meant, None for none. A day without a time is that whole day here. Raises: ConfigError."""
    if not text:
        return None
    try:
        ago = span_in(text)
        if ago is not None:
            return now - ago
        if _DAY.fullmatch(text):
            return (datetime.fromisoformat(text) + timedelta(days=int(is_end))).astimezone()
        moment = parse_time(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise ConfigError(
            f"{option} takes a day, a time with its zone such as 2026-04-18T09:14:22Z, or 30d or 12h ago."
        )
    return moment

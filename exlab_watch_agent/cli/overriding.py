"""`override add | revoke | list`: the same as editing `creation.json`, checked, and under its lock."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli.options import span_in
from exlab_watch_agent.cli.saying import say, say_aside, say_json
from exlab_watch_agent.core.commands import reason_in
from exlab_watch_agent.core.gate import Finding, Rule, Tier, refusal
from exlab_watch_agent.core.overrides import OverrideStanding, parse_time
from exlab_watch_agent.core.text import counted, printable
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode

HARD = tuple(rule.value for rule in Rule if rule.tier is Tier.HARD)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def add(site: Site, word: str, problem_class: str, *, reason: str, operator: str | None, expires: str | None) -> int:
    """Append an override, and say what still blocks the run.

    Only what the run breaks now can be overridden: what it might break later, somebody has to see first. Where the run cannot be
    looked at, that is said. Raises: ConfigError for a wrong word, AgentError when the file cannot be changed.
    """
    path, record = site.find_run(word)
    who, why, now = _who(operator), reason_in(reason), site.now()
    until = moment_of(expires, now, "--expires")
    findings = offline.findings_now(site, path, record)
    _require_class(problem_class, path, findings)
    override_id = offline.add_override(site, path, problem_class, operator=who, reason=why, now=now, expires_at=until)
    say(
        f"override {override_id} was added to {printable(path)}; {_what_blocks(offline.findings_now(site, path, record))}"
    )
    return ExitCode.FINE


def _require_class(problem_class: str, path: str, findings: tuple[Finding, ...] | str) -> None:
    """Raise ConfigError for a class that does not exist, AgentError for one that the run does not have."""
    shown = printable(problem_class)
    if isinstance(findings, str):
        own = f"which rules the run breaks cannot be told now: {printable(findings)}"
    elif classes := [*dict.fromkeys(one.rule.value for one in findings if one.tier is Tier.HARD)]:
        own = f"those that {printable(path)} breaks: {', '.join(classes)}"
    else:
        own = f"{printable(path)} breaks none"
    if problem_class not in HARD:
        raise ConfigError(f"{shown} is not a rule that blocks a run; {own}.")
    if not isinstance(findings, str) and problem_class not in {one.rule.value for one in findings}:
        raise AgentError(f"The run has nothing that {shown} is about, so nothing was added; {own}.")


def _what_blocks(findings: tuple[Finding, ...] | str) -> str:
    if isinstance(findings, str):
        return f"whether anything still blocks it cannot be told now: {printable(findings)}"
    refused = refusal(findings)
    return (
        "nothing blocks it any more" if refused is None else f"what still blocks it, {refused[0].value}: {refused[1]}"
    )


def revoke(site: Site, word: str, override_id: str, *, reason: str, operator: str | None) -> int:
    """Append a tombstone. Raises: AgentError when there is no such override in force."""
    path, _ = site.find_run(word)
    offline.revoke_override(site, path, override_id, operator=_who(operator), reason=reason_in(reason))
    say(f"override {override_id} of {printable(path)} is revoked")
    return ExitCode.FINE


def list_all(site: Site, word: str | None, *, as_json: bool) -> int:
    """Print all entries of a run, or of all runs that are known, the newest last, with what each is worth now."""
    unread = 0
    if word is None:
        listed, unread = offline.overrides_of_all(site)
    else:
        listed = offline.overrides_of(site, site.find_run(word)[0])
    if as_json:
        say_json({"schema": 1, "overrides": [one.to_json() for one in listed]})
    else:
        if not listed:
            say("no overrides")
        for path, of_run in groupby(listed, key=attrgetter("run_path")):
            if word is None:
                say(path)
            for one in of_run:
                say(f"{'  ' if word is None else ''}{line_of(one)}")
    if unread:
        say_aside(f"{counted(unread, 'run')} left out, whose creation.json is not here or cannot be read")
    return ExitCode.FINE


def listed_of(site: Site, run_path: str) -> list[offline.ListedOverride]:
    """Return the same for one run, none where its `creation.json` cannot be read: what `show` says of its folder has that."""
    with suppress(AgentError):
        return offline.overrides_of(site, run_path)
    return []


def line_of(one: offline.ListedOverride) -> str:
    """Return an entry in one line: what it is worth now, its id, its class, who, when, until when, and why."""
    entry = one.entry
    what = entry.problem_class or (f"revokes {entry.revokes}" if entry.revokes is not None else "no class")
    until = f", until {entry.expires_at}" if entry.expires_at else ""
    when = f" at {entry.recorded_at}" if entry.recorded_at else ""
    who = f"by {entry.operator or 'nobody named'}{when}{until}"
    worth = "no effect" if one.why and one.standing is not OverrideStanding.REVOKED else one.standing.value
    because = f" ({one.why})" if one.why else ""
    return f"{worth:<9} {entry.id or '(no id yet)'}  {what}  {who}: {entry.reason}{because}"


def _who(operator: str | None) -> str:
    name = operator if operator is not None else operator_here().name
    if not name.strip():
        raise ConfigError("--operator must name who takes responsibility.")
    return name.strip()


def moment_of(text: str | None, now: datetime, option: str) -> datetime | None:
    """Return the time that an option gives, None where it was not given. A day is over at its end here. Raises: ConfigError."""
    if text is None:
        return None
    relative = span_in(text)
    try:
        moment = parse_time(text) if relative is None else now + relative
        if _DAY.fullmatch(text):
            moment = (datetime.fromisoformat(text) + timedelta(days=1)).astimezone()
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise ConfigError(
            f"{option} takes a day such as 2026-10-18, a time with its zone such as 2026-10-18T09:14:22Z, or 30d or 12h from now."
        )
    if moment <= now:
        raise ConfigError(f"{option} {printable(text)} lies in the past or is now, so it would have no effect.")
    return moment

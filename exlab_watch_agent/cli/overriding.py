"""`override add | revoke | list`: the same as editing `creation.json`, checked, and under its lock."""

from __future__ import annotations

from datetime import datetime

from exlab_watch_agent.app import offline
from exlab_watch_agent.app.site import Site, operator_here
from exlab_watch_agent.cli.options import span_in
from exlab_watch_agent.cli.saying import say, say_json
from exlab_watch_agent.core.gate import Rule, Tier
from exlab_watch_agent.core.overrides import parse_time
from exlab_watch_agent.core.text import printable
from exlab_watch_agent.errors import ConfigError, ExitCode


def add(site: Site, word: str, problem_class: str, *, reason: str, operator: str | None, expires: str | None) -> int:
    """Append an override. Raises: ConfigError for a wrong word, AgentError when the file cannot be changed."""
    path, _ = site.find_run(word)
    hard = [rule.value for rule in Rule if rule.tier is Tier.HARD]
    if problem_class not in hard:
        raise ConfigError(
            f"{printable(problem_class)} is not a rule that blocks a run. The rules that do: {', '.join(hard)}."
        )
    now = site.now()
    override_id = offline.add_override(
        site,
        path,
        problem_class,
        operator=_who(operator),
        reason=_why(reason),
        now=now,
        expires_at=moment_of(expires, now, "--expires"),
    )
    say(f"override {override_id} was added to {printable(path)}")
    return ExitCode.FINE


def revoke(site: Site, word: str, override_id: str, *, reason: str, operator: str | None) -> int:
    """Append a tombstone. Raises: AgentError when there is no such override in force."""
    path, _ = site.find_run(word)
    offline.revoke_override(site, path, override_id, operator=_who(operator), reason=_why(reason))
    say(f"override {override_id} of {printable(path)} is revoked")
    return ExitCode.FINE


def list_all(site: Site, word: str, *, as_json: bool) -> int:
    """Print all entries, the newest last, with their standing now."""
    path, _ = site.find_run(word)
    listed = offline.overrides_of(site, path)
    if as_json:
        overrides = [
            {
                "id": entry.id,
                "problem_class": entry.problem_class,
                "revokes": entry.revokes,
                "operator": entry.operator,
                "recorded_at": entry.recorded_at,
                "expires_at": entry.expires_at,
                "reason": entry.reason,
                "standing": standing.value,
            }
            for entry, standing in listed
        ]
        say_json({"schema": 1, "overrides": overrides})
        return ExitCode.FINE
    if not listed:
        say("no overrides")
    for entry, standing in listed:
        what = entry.problem_class or f"revokes {entry.revokes}"
        until = f", until {entry.expires_at}" if entry.expires_at else ""
        when = f" at {entry.recorded_at}" if entry.recorded_at else ""
        who = f"by {entry.operator or 'nobody named'}{when}{until}"
        say(printable(f"{standing.value:<9} {entry.id or '(no id yet)'}  {what}  {who}: {entry.reason}"))
    return ExitCode.FINE


def _who(operator: str | None) -> str:
    name = operator if operator is not None else operator_here().name
    if not name.strip():
        raise ConfigError("--operator must name who takes responsibility.")
    return name.strip()


def _why(reason: str) -> str:
    if not reason.strip():
        raise ConfigError("--reason must say why.")
    return reason.strip()


def moment_of(text: str | None, now: datetime, option: str) -> datetime | None:
    """Return the time that an option gives, None where it was not given. Raises: ConfigError."""
    if text is None:
        return None
    relative = span_in(text)
    if relative is not None:
        return now + relative
    moment = parse_time(text)
    if moment is None:
        raise ConfigError(f"{option} takes a time with its zone, such as 2026-10-18T09:14:22Z, or 30d or 12h from now.")
    if moment <= now:
        raise ConfigError(f"{option} lies in the past, so it would have no effect.")
    return moment

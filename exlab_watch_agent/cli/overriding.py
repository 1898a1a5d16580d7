"""`override add | revoke | list`: the same as editing `creation.json`, checked, and under its lock."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime, timedelta
from typing import Any

from exlab_watch_agent.adapters.clock import SystemClock
from exlab_watch_agent.adapters.local.creation_file import JsonCreationFiles
from exlab_watch_agent.cli.context import Context, operator_name
from exlab_watch_agent.core.gate import Rule, Tier
from exlab_watch_agent.core.overrides import OverrideStanding, override_standing, parse_time
from exlab_watch_agent.core.text import printable, utc_text
from exlab_watch_agent.errors import AgentError, ConfigError, ExitCode

_FROM_NOW = re.compile(r"(\d{1,5})([hd])")


def add(
    context: Context, word: str, problem_class: str, *, reason: str, operator: str | None, expires: str | None
) -> int:
    """Append an override. Raises: ConfigError for a wrong word, AgentError when the file cannot be changed."""
    path, _ = context.find_run(word)
    hard = [rule.value for rule in Rule if rule.tier is Tier.HARD]
    if problem_class not in hard:
        raise ConfigError(f"{printable(problem_class)} is no rule that blocks a run. Those are: {', '.join(hard)}.")
    now = SystemClock().now()
    entry: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "problem_class": problem_class,
        "operator": _who(operator),
        "recorded_at": utc_text(now),
        "expires_at": _expiry(expires, now),
        "reason": _why(reason),
        "revoked": False,
    }
    _append(context, path, entry)
    print(f"override {entry['id']} was added to {printable(path)}")
    return ExitCode.FINE


def revoke(context: Context, word: str, override_id: str, *, reason: str, operator: str | None) -> int:
    """Append a tombstone. Raises: AgentError when there is no such override in force."""
    path, _ = context.find_run(word)
    now = SystemClock().now()
    overrides = JsonCreationFiles().read(path).creation.overrides
    target = next((entry for entry in overrides if entry.id == override_id and entry.revokes is None), None)
    if target is None:
        raise AgentError(
            f"{printable(path)} has no override {printable(override_id)}: `exlab-watch-agent override list` shows them."
        )
    if override_standing(target, overrides, now=now) is OverrideStanding.REVOKED:
        raise AgentError(f"The override {override_id} is revoked already.")
    entry = {
        "id": str(uuid.uuid4()),
        "revokes": override_id,
        "operator": _who(operator),
        "recorded_at": utc_text(now),
        "reason": _why(reason),
        "revoked": True,
    }
    _append(context, path, entry)
    print(f"override {override_id} of {printable(path)} is revoked")
    return ExitCode.FINE


def list_all(context: Context, word: str, *, as_json: bool) -> int:
    """Print all entries, the newest last, with their standing now."""
    path, _ = context.find_run(word)
    now = SystemClock().now()
    overrides = JsonCreationFiles().read(path).creation.overrides
    listed = [
        {
            "id": entry.id,
            "problem_class": entry.problem_class,
            "revokes": entry.revokes,
            "operator": entry.operator,
            "recorded_at": entry.recorded_at,
            "expires_at": entry.expires_at,
            "reason": entry.reason,
            "standing": override_standing(entry, overrides, now=now).value,
        }
        for entry in overrides
    ]
    if as_json:
        print(json.dumps({"schema": 1, "overrides": listed}, indent=2))
        return ExitCode.FINE
    if not listed:
        print("no overrides")
    for row in listed:
        what = row["problem_class"] or f"revokes {row['revokes']}"
        until = f", until {row['expires_at']}" if row["expires_at"] else ""
        entry_id = row["id"] or "(no id yet)"
        who = f"by {row['operator']} at {row['recorded_at']}{until}"
        line = f"{row['standing']:<9} {entry_id}  {what}  {who}: {row['reason']}"
        print(printable(line))
    return ExitCode.FINE


def _append(context: Context, path: str, entry: dict[str, Any]) -> None:
    JsonCreationFiles().append_override(path, entry)
    if context.holder is not None:
        # The watcher sees the file, too; this makes sure where it does not.
        context.ask_agent({"command": "look", "run_path": path})


def _who(operator: str | None) -> str:
    name = operator if operator is not None else operator_name()
    if not name.strip():
        raise ConfigError("--operator must name who takes responsibility.")
    return name.strip()


def _why(reason: str) -> str:
    if not reason.strip():
        raise ConfigError("--reason must say why.")
    return reason.strip()


def _expiry(text: str | None, now: datetime) -> str | None:
    if text is None:
        return None
    relative = _FROM_NOW.fullmatch(text)
    if relative is not None:
        hours = int(relative[1]) * (24 if relative[2] == "d" else 1)
        return utc_text(now + timedelta(hours=hours))
    moment = parse_time(text)
    if moment is None:
        raise ConfigError("--expires takes a time with its zone, such as 2026-10-18T09:14:22Z, or 30d or 12h from now.")
    if moment <= now:
        raise ConfigError("--expires lies in the past, so the override would have no effect.")
    return utc_text(moment)

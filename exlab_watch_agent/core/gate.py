"""The Pre-Sync Gate: what is wrong with a run, and whether active overrides let it through all the same.

Decided here: every rule over a run's place, names, front matter and `creation.json`, and what counts as blocking. Not here:
which overrides are active (overrides.py), whether the run is complete (completeness.py), what a refusal leads to
(decide.py).

Longer than other modules, because it is read as one list: each rule with its words, worst first.

Paths in findings: what is in the run is named relative to the run folder; a segment above it from the equipment id
down (`CONFOCAL_01/PROJ-0042`). Both are POSIX, and both are made safe to print (text.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

import yaml

from exlab_watch_agent.core.creation import Creation, OverrideEntry
from exlab_watch_agent.core.discovery import RunPlace
from exlab_watch_agent.core.inventory import CACHE_FOLDER, CREATION_FILE, CREATION_PATH, Inventory, OddKind
from exlab_watch_agent.core.overrides import active_classes
from exlab_watch_agent.core.text import counted, printable, unicode_text

FRONT_MATTER_CHARS_MAX = 64 * 1024
"""A longer front matter is not parsed, and told as malformed. Markers are looked for in all of it."""
MARKDOWN_BYTES_MAX = 5 * 1024 * 1024
"""So much of a Markdown file is read, from its beginning."""

LIMS_PROJECT_SINCE_MINOR = 5
TOKENS_SHOWN_MAX = 3


class Tier(StrEnum):
    """Hard findings block a run unless overridden, soft ones are only reported."""

    HARD = "hard"
    SOFT = "soft"


class OffendingKind(StrEnum):
    DIRECTORY_SEGMENT = "directory_segment"
    FILE_NAME = "file_name"
    FILE_CONTENT = "file_content"


class Rule(StrEnum):
    """Every rule, worst first: damaged data, data that would stay behind, data that would overwrite data, bad names.

    A rule's name is also the `problem_class` of an override. `evaluate` produces all but two: an `orphan` has no
    `creation.json` to evaluate, and `verify_skipped_oversize` is found by the verify.
    """

    MANIFEST_HASH_MISMATCH = "manifest_hash_mismatch"
    SYMLINK_IN_RUN = "symlink_in_run"
    SPECIAL_FILE_IN_RUN = "special_file_in_run"
    CASE_COLLISION = "case_collision"
    ILLEGAL_FILESYSTEM_CHARACTER = "illegal_filesystem_character"
    RESERVED_FILESYSTEM_NAME = "reserved_filesystem_name"
    MODE_PREFIX_MISMATCH = "mode_prefix_mismatch"
    LEFTOVER_JINJA_MARKER = "leftover_jinja_marker"
    UNRESOLVED_PLACEHOLDER_TOKEN = "unresolved_placeholder_token"  # noqa: S105
    ORPHAN = "orphan"
    VERIFY_SKIPPED_OVERSIZE = "verify_skipped_oversize"
    MISSING_REQUIRED_FIELD = "missing_required_field"
    MALFORMED_YAML_FRONT_MATTER = "malformed_yaml_front_matter"

    @property
    def tier(self) -> Tier:
        return Tier.SOFT if self in _SOFT_RULES else Tier.HARD


_SOFT_RULES = frozenset(
    {
        Rule.ORPHAN,
        Rule.VERIFY_SKIPPED_OVERSIZE,
        Rule.MISSING_REQUIRED_FIELD,
        Rule.MALFORMED_YAML_FRONT_MATTER,
    }
)
_RANK = {rule: rank for rank, rule in enumerate(Rule)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a run. `rule_detail` is a sentence for an operator: what is wrong, what to do."""

    rule: Rule
    tier: Tier
    run_path: str
    offending_path: str
    offending_kind: OffendingKind
    matched_token: str
    rule_detail: str
    synced_under_prior_policy: bool = False
    override_active: bool = False

    def to_json(self) -> dict[str, str | bool]:
        """Return the finding as plain values that JSON in UTF-8 can always carry."""
        return {
            "rule": self.rule.value,
            "tier": self.tier.value,
            "run_path": unicode_text(self.run_path),
            "offending_path": self.offending_path,
            "offending_kind": self.offending_kind.value,
            "matched_token": self.matched_token,
            "rule_detail": self.rule_detail,
            "synced_under_prior_policy": self.synced_under_prior_policy,
            "override_active": self.override_active,
        }


# --- Findings of a run ------------------------------------------------------------------------------------------------


def evaluate(
    *,
    place: RunPlace,
    creation: Creation,
    inventory: Inventory,
    markdown: Iterable[tuple[str, str]] = (),
    declared_mismatches: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Return all findings of a run, none marked as overridden, sorted by rule (worst first), path and token.

    `markdown`: path and text of each file for which `is_markdown` and `may_have_front_matter` hold, or its first
    `MARKDOWN_BYTES_MAX` bytes; taken one by one, so that no two need be in memory. `declared_mismatches`: paths whose
    SHA-256 is not the one that the instrument's own manifest gives.
    """
    run_path = place.run_path
    entries = _entries(inventory)
    findings = [
        *_segment_findings(place),
        *_name_findings(run_path, entries),
        *_collision_findings(run_path, entries),
        *_odd_findings(run_path, inventory),
        *_mode_findings(place, creation),
        *_creation_findings(run_path, creation),
        *(finding for path, text in markdown for finding in _front_matter_findings(run_path, path, text)),
        *_mismatch_findings(run_path, declared_mismatches),
    ]
    return tuple(sorted(findings, key=lambda f: (_RANK[f.rule], f.offending_path, f.matched_token)))


def orphan(place: RunPlace) -> Finding:
    """Return the finding for a run-shaped folder without `creation.json`."""
    detail = (
        f"The folder {_quoted(place.leaf)} looks like a run but has no {CREATION_PATH}, so it is not "
        "synced: create the run with ExLab-Wizard, or move the folder elsewhere."
    )
    segments = _segments(place)
    return _finding(place.run_path, Rule.ORPHAN, OffendingKind.DIRECTORY_SEGMENT, segments[-1], place.leaf, detail)


# --- Names ------------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"<[A-Za-z_][A-Za-z0-9_]*>")
_JINJA_STATEMENT = re.compile(r"\{%[^%]*%\}")
_JINJA = re.compile(r"\{\{[^}]*\}\}|" + _JINJA_STATEMENT.pattern)
# Surrogates are what is left of bytes that are not valid Unicode. `\Z`: a dot or space is only illegal at the end.
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\ud800-\udfff]|[. ]\Z')
# Windows looks at what is before the first dot, without spaces at its end, and takes superscript digits as digits.
_RESERVED = re.compile(r"\A((?:CON|PRN|AUX|NUL|(?:COM|LPT)[1-9¹²³])) *(?:\.|\Z)", re.IGNORECASE)
# One search decides for nearly every name that no rule needs to look closer.
_SUSPECT = re.compile("|".join(p.pattern for p in (_PLACEHOLDER, _JINJA, _ILLEGAL, _RESERVED)), re.IGNORECASE)


def _illegal_tokens(name: str) -> list[str]:
    """Return the illegal characters, without the brackets of a placeholder: these count once, as the placeholder."""
    return _ILLEGAL.findall(_PLACEHOLDER.sub("_", name))


_NAME_RULES: tuple[tuple[Rule, Callable[[str], list[str]], str], ...] = (
    (
        Rule.UNRESOLVED_PLACEHOLDER_TOKEN,
        _PLACEHOLDER.findall,
        "still has the placeholder {tokens}: rename it to what was meant.",
    ),
    (
        Rule.LEFTOVER_JINJA_MARKER,
        _JINJA.findall,
        "still has the template marker {tokens}: rename it to what was meant.",
    ),
    (
        Rule.ILLEGAL_FILESYSTEM_CHARACTER,
        _illegal_tokens,
        "has {tokens} where Windows and SMB shares do not allow it: rename it.",
    ),
    (
        Rule.RESERVED_FILESYSTEM_NAME,
        _RESERVED.findall,
        "is, as {tokens}, reserved by Windows for a device: rename it.",
    ),
)


def _entries(inventory: Inventory) -> list[tuple[str, OffendingKind]]:
    """Return every file and folder of the run once, sorted by path; folders also where only their content is listed."""
    names = [entry.path for entry in inventory.files] + [entry.path for entry in inventory.odd]
    folders = set(inventory.directories)
    for path in (*names, *inventory.directories):
        parent = path.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    entries = [(path, OffendingKind.DIRECTORY_SEGMENT) for path in folders]
    entries += [(path, OffendingKind.FILE_NAME) for path in names]
    return sorted(entries)


def _segments(place: RunPlace) -> tuple[str, ...]:
    """Return the paths of the segments, from the equipment id down to the run."""
    parts = (place.equipment_id, place.project, place.parent_folder, place.leaf)
    return tuple("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def _segment_findings(place: RunPlace) -> Iterator[Finding]:
    return _name_findings(place.run_path, ((path, OffendingKind.DIRECTORY_SEGMENT) for path in _segments(place)))


def _name_findings(run_path: str, entries: Iterable[tuple[str, OffendingKind]]) -> Iterator[Finding]:
    """Yield one finding for each rule that the last part of a path breaks: a folder's name counts once, there."""
    for path, kind in entries:
        name = path.rpartition("/")[2]
        if not _SUSPECT.search(name):
            continue
        noun = "file" if kind is OffendingKind.FILE_NAME else "folder"
        for rule, tokens_of, complaint in _NAME_RULES:
            if tokens := tokens_of(name):
                detail = f"The {noun} name {_quoted(name)} " + complaint.format(tokens=_listed(tokens))
                yield _finding(run_path, rule, kind, path, tokens[0], detail)


def _collision_findings(run_path: str, entries: Iterable[tuple[str, OffendingKind]]) -> Iterator[Finding]:
    """Yield one finding for each name that is, to some NAS, the name of an earlier neighbour in the same folder.

    Comparing neighbours is enough: where two paths collide, so do the two folders or files at which they part, and
    repairing that repairs everything below. The cache folder, which the inventory leaves out, counts as a neighbour.
    """
    earlier = {folded(CACHE_FOLDER): CACHE_FOLDER}
    for path, kind in entries:
        parent, slash, name = path.rpartition("/")
        twin = earlier.setdefault(parent + slash + folded(name), path)
        if twin != path:
            detail = (
                f"{_quoted(path)} and {_quoted(twin)} are one name where case or Unicode form is ignored, "
                "so one could overwrite the other on the NAS: rename one of them."
            )
            yield _finding(run_path, Rule.CASE_COLLISION, kind, path, name, detail)


def folded(name: str) -> str:
    """Return what is left of a name when case and canonical Unicode form are ignored.

    Source: Unicode Standard, D145 (canonical caseless match), which is also what ext4 and ZFS ignore. Compatibility
    forms stay apart: `cm2` and `cm²` are two names everywhere.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def without_creation(destination: str) -> str:
    """Return what is said instead of a sealed run whose `creation.json` is gone: it is synced, and its copy has the file."""
    return (
        f"The run is synced, but its {CREATION_PATH} is missing here, so no override or status can be read: put "
        f"it back; the NAS copy has one in {destination}/{CACHE_FOLDER}."
    )


# --- Everything but names ---------------------------------------------------------------------------------------------

_ODD_RULES = {
    OddKind.SYMLINK: (
        Rule.SYMLINK_IN_RUN,
        "is a link, which is never followed or copied: put what it points to in its place, or remove it.",
    ),
    OddKind.SPECIAL: (
        Rule.SPECIAL_FILE_IN_RUN,
        "is a pipe, socket or device, which is never opened or copied: remove it.",
    ),
    OddKind.MOUNT_POINT: (
        Rule.SPECIAL_FILE_IN_RUN,
        "is where another disk is mounted, which is never entered or copied: move what it holds into the run, or unmount it.",
    ),
}
_RUN_KINDS = {"experimental": ("Runs", "Run_"), "test": ("TestRuns", "TestRun_")}


def _odd_findings(run_path: str, inventory: Inventory) -> Iterator[Finding]:
    for odd in inventory.odd:
        rule, complaint = _ODD_RULES[odd.kind]
        detail = f"{_quoted(odd.path)} {complaint}"
        yield _finding(run_path, rule, OffendingKind.FILE_NAME, odd.path, _last_part(odd.path), detail)


def _mode_findings(place: RunPlace, creation: Creation) -> Iterator[Finding]:
    """Yield a finding unless parent folder and leaf prefix are those of `run_kind`; an unknown kind has none."""
    parent_folder, prefix = _RUN_KINDS.get(creation.run_kind, ("", ""))
    if parent_folder and place.parent_folder == parent_folder and place.leaf.startswith(prefix):
        return
    detail = (
        f"{CREATION_FILE} says run_kind {_quoted(creation.run_kind)}, but the run is "
        f"{_quoted(place.parent_folder + '/' + place.leaf)}; Runs/Run_... goes with experimental and "
        "TestRuns/TestRun_... with test: move the run, or correct run_kind."
    )
    kind = OffendingKind.DIRECTORY_SEGMENT
    yield _finding(place.run_path, Rule.MODE_PREFIX_MISMATCH, kind, _segments(place)[-1], place.leaf, detail)


def _creation_findings(run_path: str, creation: Creation) -> Iterator[Finding]:
    if creation.has_lims_project or creation.schema_minor < LIMS_PROJECT_SINCE_MINOR:
        return
    detail = (
        f"{CREATION_FILE} has no lims_project, which schema {creation.schema_version} requires: "
        "add it with ExLab-Wizard."
    )
    yield _finding(
        run_path, Rule.MISSING_REQUIRED_FIELD, OffendingKind.FILE_CONTENT, CREATION_PATH, "lims_project", detail
    )


def _mismatch_findings(run_path: str, declared_mismatches: Sequence[str]) -> Iterator[Finding]:
    for path in sorted(set(declared_mismatches)):
        detail = (
            f"{_quoted(path)} does not have the SHA-256 that the instrument's manifest gives for it: "
            "export the file from the instrument again, or correct the manifest."
        )
        kind = OffendingKind.FILE_CONTENT
        yield _finding(run_path, Rule.MANIFEST_HASH_MISMATCH, kind, path, _last_part(path), detail)


def is_markdown(path: str) -> bool:
    """Return whether a file's front matter is judged, by its name."""
    return path[-3:].lower() == ".md"


def may_have_front_matter(beginning: bytes) -> bool:
    """Return whether a file that begins so can have any: most have none, and need not be read further. Six bytes are enough."""
    return beginning.removeprefix(b"\xef\xbb\xbf").startswith(b"---")


def _front_matter_findings(run_path: str, path: str, text: str) -> Iterator[Finding]:
    """Yield what is wrong with the front matter: all between a first line `---` and the next; nothing else is read."""
    first, *rest = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not _is_fence(first):
        return
    end = next((number for number, line in enumerate(rest) if _is_fence(line)), None)
    front_matter = "\n".join(rest[:end])
    trouble = 'has no closing line "---"' if end is None else _yaml_trouble(front_matter)
    kind, shown = OffendingKind.FILE_CONTENT, printable(path)
    if trouble:
        detail = f"The front matter of {shown} {trouble}: correct it."
        yield _finding(run_path, Rule.MALFORMED_YAML_FRONT_MATTER, kind, path, "---", detail)
    if end is None:
        return
    if tokens := _PLACEHOLDER.findall(front_matter):
        detail = f"The front matter of {shown} still has the placeholder {_listed(tokens)}: fill it in."
        yield _finding(run_path, Rule.UNRESOLVED_PLACEHOLDER_TOKEN, kind, path, tokens[0], detail)
    if tokens := _jinja_markers(front_matter):
        detail = f"The front matter of {shown} still has the template marker {_listed(tokens)}: fill it in."
        yield _finding(run_path, Rule.LEFTOVER_JINJA_MARKER, kind, path, tokens[0], detail)


def _jinja_markers(text: str) -> list[str]:
    """Return the markers of a long text; there are some exactly where `_JINJA` finds some.

    That pattern takes time that grows with the square of the length where many `{{` have no end. Here each piece up to
    the next brace is looked at once.
    """
    pieces = text.split("}")[:-1]  # What follows the last brace is closed by none.
    expressions = [
        piece[start:] + "}}" for piece, after in pairwise(pieces) if not after and (start := piece.find("{{")) >= 0
    ]
    return expressions + _JINJA_STATEMENT.findall(text)


def _is_fence(line: str) -> bool:
    return line.rstrip(" \t") == "---"


def _yaml_trouble(text: str) -> str:
    """Return what keeps `text` from being YAML, empty if nothing does.

    Composed, not loaded: no values are built, so nested merge keys (`<<: [*a, *a]`) cannot multiply without end, and
    a value that only looks like a number or a date is nobody's error.
    """
    if len(text) > FRONT_MATTER_CHARS_MAX:
        return f"is longer than {FRONT_MATTER_CHARS_MAX} characters"
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        # The mark counts from 0, and the opening fence is the first line of the file.
        return f"is not YAML (line {error.problem_mark.line + 2})" if error.problem_mark else "is not YAML"
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        # PyYAML lets the last three escape: `%YAML 999...`, `"\\UFFFFFFFF"`, and a thousand brackets.
        return "is not YAML"
    return ""


# --- The verdict ------------------------------------------------------------------------------------------------------


def mark_overrides(
    findings: Sequence[Finding], overrides: Sequence[OverrideEntry], *, now: datetime
) -> tuple[Finding, ...]:
    """Return the findings, each with `override_active` as it is at `now`, whatever it was before."""
    classes = active_classes(overrides, now=now)
    return tuple(replace(finding, override_active=finding.rule.value in classes) for finding in findings)


def blocking(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the hard findings without an active override, in the order given. Expects marked findings."""
    return tuple(finding for finding in findings if finding.tier is Tier.HARD and not finding.override_active)


def refusal(findings: Sequence[Finding]) -> tuple[Rule, str] | None:
    """Return the worst rule that blocks now, and one sentence: what is wrong, and how much more there is. None: nothing blocks.

    Expects marked findings.
    """
    blockers = sorted(blocking(findings), key=lambda finding: _RANK[finding.rule])
    if not blockers:
        return None
    worst, more = blockers[0], len(blockers) - 1
    others = f" ({counted(more, 'more blocking finding')})" if more else ""
    return worst.rule, f"{worst.rule_detail.removesuffix('.')}{others}"


def explain(findings: Sequence[Finding]) -> str:
    """Return the sentence of `refusal`; empty when nothing blocks. Which command helps is told by who tells people."""
    refused = refusal(findings)
    return refused[1] if refused is not None else ""


# --- Words ------------------------------------------------------------------------------------------------------------


def _finding(run_path: str, rule: Rule, kind: OffendingKind, path: str, token: str, detail: str) -> Finding:
    return Finding(
        rule=rule,
        tier=rule.tier,
        run_path=run_path,
        offending_path=printable(path),
        offending_kind=kind,
        matched_token=printable(token),
        rule_detail=printable(detail),
    )


def _last_part(path: str) -> str:
    return path.rpartition("/")[2]


def _quoted(text: str) -> str:
    return f'"{text}"'


def _listed(tokens: Iterable[str]) -> str:
    """Return the different tokens for a sentence, at most `TOKENS_SHOWN_MAX` of them."""
    distinct = list(dict.fromkeys(tokens))
    shown = ", ".join(_quoted(token) for token in distinct[:TOKENS_SHOWN_MAX])
    hidden = len(distinct) - TOKENS_SHOWN_MAX
    return f"{shown} and {hidden} more" if hidden > 0 else shown

#!/usr/bin/env python3
"""Check an audit trail of exlab-watch-agent with nothing but Python: `python3 verify_trail.py FOLDER [FILE...]`.

FOLDER is a state folder or a copy of one: `audit/audit.<number>.jsonl`, oldest first, then `audit.jsonl`. Every line is one JSON
object with `seq`, its number, and `prev`, the BLAKE3 of the line before it without its newline (64 zeros before the first).
Prints the first line that does not fit and ends with 1; else prints the last line's number and digest and ends with 0.

That its end was cut, that its last line was changed, that it was written anew from its beginning, or that the folder was put back
to an older copy, no chain shows: only what others know of it. The store and the heartbeat beside it are asked where they are there.
Give as FILE what the NAS has: `.exlab-wizard/exlab-watch-agent.json` of each sealed run (`audit_seq`, `audit_blake3`), and
`.exlab-watch-agent/<host>.json` below the destination; of this agent alone: another one's files know another trail.

BLAKE3 is written out below, after its specification (https://github.com/BLAKE3-team/BLAKE3-specs), so that no package need be
trusted; it takes some milliseconds a line. `--fast` uses the package `blake3` instead.
"""

import json
import re
import sys
from pathlib import Path

MASK = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
BESIDE = ("state.a.json", "state.b.json", "heartbeat.json")
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
LANES = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def compress(value, words, counter, length, flags):
    """Return the eight words that one block of sixteen turns the chaining value into."""
    s = [*value, *IV[:4], counter & MASK, counter >> 32 & MASK, length, flags]
    for _ in range(7):
        for lane, (a, b, c, d) in enumerate(LANES):
            for word, r1, r2 in ((words[2 * lane], 16, 12), (words[2 * lane + 1], 8, 7)):
                s[a] = (s[a] + s[b] + word) & MASK
                x = s[d] ^ s[a]
                s[d] = (x >> r1 | x << (32 - r1)) & MASK
                s[c] = (s[c] + s[d]) & MASK
                x = s[b] ^ s[c]
                s[b] = (x >> r2 | x << (32 - r2)) & MASK
        words = [words[i] for i in PERMUTATION]
    return [s[i] ^ s[i + 8] for i in range(8)]


def words_of(block):
    block = block.ljust(64, b"\0")
    return [int.from_bytes(block[i : i + 4], "little") for i in range(0, 64, 4)]


def tree(data, first_chunk, flags):
    """Return the chaining value of these bytes, of which the first is the first of chunk `first_chunk`."""
    if len(data) <= 1024:
        value = list(IV)
        blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
        for number, block in enumerate(blocks):
            mark = CHUNK_START * (number == 0)
            if number == len(blocks) - 1:
                mark |= CHUNK_END | flags
            value = compress(value, words_of(block), first_chunk, len(block), mark)
        return value
    chunks = (len(data) - 1) // 1024  # as many as the largest power of two that leaves something to the right
    left = 1 << (chunks.bit_length() - 1)
    values = tree(data[: left * 1024], first_chunk, 0) + tree(data[left * 1024 :], first_chunk + left, 0)
    return compress(list(IV), values, 0, 64, PARENT | flags)


def blake3_hex(data):
    return b"".join(word.to_bytes(4, "little") for word in tree(data, 0, ROOT)).hex()


def segments(folder):
    closed = [
        path for path in (folder / "audit").glob("audit.*.jsonl") if re.fullmatch(r"audit\.\d+\.jsonl", path.name)
    ]
    live = folder / "audit.jsonl"
    return sorted(closed) + ([live] if live.exists() else [])


def check(folder, digest_of=blake3_hex, wanted=()):
    """Return the last line's number and digest, and the digests of the wanted lines: number -> digest.

    Raises: ValueError with the first line that does not fit.
    """
    seq, digest, digests = 0, "0" * 64, {}
    for path in segments(folder):
        *lines, rest = path.read_bytes().split(b"\n")  # at nothing else: JSON allows \\r between its words
        for line in lines:
            try:
                fact = json.loads(line)
                given, prev = fact["seq"], fact["prev"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"line {seq + 1} in {path.name} cannot be read") from None
            if given != seq + 1:
                raise ValueError(f"in {path.name} line {seq + 1} should come, and line {given} does")
            if prev != digest:
                raise ValueError(f"line {seq} before line {given} in {path.name} was changed, or line {given} was")
            seq, digest = given, digest_of(line)
            if seq in wanted:
                digests[seq] = digest
        if rest:
            print(f"note: behind line {seq} in {path.name} there is half of one, which never counted")
    if not seq:
        raise ValueError(f"there is no audit trail in {folder}")
    return seq, digest, digests


def known_line(path):
    """Return number and digest of the line that a claim, a heartbeat or a slot of the store knows; None where it says none."""
    try:
        for text in path.read_bytes().splitlines() if path.name.startswith("state.") else [path.read_bytes()]:
            said = json.loads(text)
            head, audit = said.get("head") or {}, said.get("audit") or {}
            seq, digest = [*head.get("trail", ()), None, None][:2]
            seq, digest = (
                said.get("audit_seq", audit.get("seq", seq)),
                said.get("audit_blake3", audit.get("blake3", digest)),
            )
            if type(seq) is int and seq > 0 and isinstance(digest, str) and digest:
                return seq, digest
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        pass
    return None


def disagreement(name, seq, digest, last, digests):
    """Return what a file says against the trail, None where it agrees."""
    if seq > last:
        return f"{name} knows line {seq}, and the trail ends with line {last}: it was cut, or the folder was put back"
    if digests.get(seq) != digest:
        return f"{name} knows another line {seq}: it was changed, or the trail was written anew"
    return None


def main(words):
    fast = "--fast" in words
    words = [word for word in words if word != "--fast"]
    if not words:
        print("usage: verify_trail.py [--fast] FOLDER [FILE...]", file=sys.stderr)
        return 2
    folder, given = Path(words[0]), [Path(word) for word in words[1:]]
    known = {path: known_line(path) for path in (*(folder / name for name in BESIDE), *given)}
    for path in given:
        if known[path] is None:
            print(f"{ascii(str(path))[1:-1]} says no line of a trail", file=sys.stderr)
            return 2
    known = {ascii(str(path))[1:-1]: line for path, line in known.items() if line is not None}
    if fast:
        from blake3 import blake3

        digest_of = lambda line: blake3(line).hexdigest()  # noqa: E731
    else:
        digest_of = blake3_hex
    try:
        seq, digest, digests = check(folder, digest_of, {line[0] for line in known.values()})
    except (ValueError, OSError) as error:
        print(f"BROKEN: {error}")
        return 1
    against = [disagreement(name, *line, seq, digests) for name, line in sorted(known.items(), key=lambda one: one[1])]
    for said in filter(None, against):
        print(f"BROKEN: {said}")
    if any(against):
        return 1
    print(f"every line chains; the last is line {seq}, its BLAKE3 {digest}")
    outside = len({*map(str, given)})
    print(f"files that know a line of it and agree: {len(known) - outside} beside it, {outside} given")
    if not outside:
        print("no FILE of the NAS was given, so that the folder was put back to an older copy would not show")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Check an audit trail of exlab-watch-agent with nothing but Python: `python3 verify_trail.py FOLDER`.

FOLDER is a state folder or a copy of one: `audit/audit.<number>.jsonl`, oldest first, then `audit.jsonl`. Every line is one JSON
object with `seq`, its number, and `prev`, the BLAKE3 of the line before it without its newline (64 zeros before the first).
Prints the first line that does not fit and ends with 1; else prints the last line's number and digest and ends with 0: compare
these with what the NAS knows (`audit_seq` and `audit_blake3` in `.exlab-wizard/exlab-watch-agent.json` of a sealed run, and in
`.exlab-watch-agent/*.json` below the destination), for a cut end only shows there.

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


def check(folder, digest_of=blake3_hex):
    """Return the last line's number and digest. Raises: ValueError with the first line that does not fit."""
    seq, digest = 0, "0" * 64
    for path in segments(folder):
        for raw in path.read_bytes().splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                print(f"note: behind line {seq} there is half of one, which never counted")
                break
            line = raw[:-1]
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
    if not seq:
        raise ValueError(f"there is no audit trail in {folder}")
    return seq, digest


def main(words):
    fast = "--fast" in words
    words = [word for word in words if word != "--fast"]
    if len(words) != 1:
        print("usage: verify_trail.py [--fast] FOLDER", file=sys.stderr)
        return 2
    if fast:
        from blake3 import blake3

        digest_of = lambda line: blake3(line).hexdigest()  # noqa: E731
    else:
        digest_of = blake3_hex
    try:
        seq, digest = check(Path(words[0]), digest_of)
    except (ValueError, OSError) as error:
        print(f"BROKEN: {error}")
        return 1
    print(f"every line chains; the last is line {seq}, its BLAKE3 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

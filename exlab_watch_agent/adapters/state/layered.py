"""A mapping that never changes once it is handed out: what was loaded at the start, and over it what came since.

One thread makes a new one with each change, others go on reading the one that they have. What was loaded is one dictionary,
shared by all of them, so a start costs no more than that dictionary; a change costs the logarithm of the changes before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rpds import HashTrieMap

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Layered(Generic[Key, Value]):
    """`loaded`: changed by nobody once a change was made above it. `changed`: key → value, None for one that was removed.

    `added`: the keys that came since, in their order; the list is shared and only grows, `added_count` of it are ours.
    `grown`: how many more entries there are than were loaded.
    """

    loaded: dict[Key, Value] = field(default_factory=dict)
    changed: HashTrieMap[Key, Value | None] = field(default_factory=HashTrieMap)
    added: list[Key] = field(default_factory=list)
    added_count: int = 0
    grown: int = 0

    def get(self, key: Key) -> Value | None:
        return self.changed.get(key, self.loaded.get(key))

    def __getitem__(self, key: Key) -> Value:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None  # type: ignore[arg-type]  # a key of another type is in neither

    def __len__(self) -> int:
        return len(self.loaded) + self.grown

    def put(self, key: Key, value: Value) -> Layered[Key, Value]:
        """Return the mapping with this entry. To be called on the latest one only, as `remove` is."""
        grown = self.grown
        if self.get(key) is None:
            grown += 1
            if key not in self.loaded and key not in self.changed:
                self.added.append(key)
        return Layered(self.loaded, self.changed.insert(key, value), self.added, len(self.added), grown)

    def remove(self, key: Key) -> Layered[Key, Value]:
        """Return the mapping without this entry."""
        grown = self.grown - (key in self)
        return Layered(self.loaded, self.changed.insert(key, None), self.added, self.added_count, grown)

    def load(self, key: Key, value: Value) -> None:
        """Take this entry among the loaded ones, in place; only before the first change, and before others read it."""
        assert not self.added_count, "what was loaded stays as it is"
        self.loaded[key] = value

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Yield the entries in the order in which their keys came."""
        for key in self.loaded:
            value = self.get(key)
            if value is not None:
                yield key, value
        for key in self.added[: self.added_count]:
            value = self.get(key)
            if value is not None:
                yield key, value

    def values(self) -> Iterator[Value]:
        return (value for _, value in self.items())

"""A cache that is bounded in bytes instead of entries; the least recently used goes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key")
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """size_of: bytes of a value. Values may grow: `keep` one again, and it is measured again."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._cache: LRUCache[Key, Value] = LRUCache(max_bytes, getsizeof=size_of)

    def keep(self, key: Key, value: Value) -> None:
        """Stores a value, in the place of older ones; one that is larger than the whole cache is not kept."""
        try:
            self._cache[key] = value
        except ValueError:
            self._cache.pop(key, None)

    def get(self, key: Key) -> Value | None:
        """A value, which now counts as used."""
        value: Value | None = self._cache.get(key)
        return value

    def __getitem__(self, key: Key) -> Value:
        return self._cache[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    def keep_only(self, wanted: Callable[[Key], bool]) -> None:
        """Drops every value whose key is not wanted."""
        for key in [key for key in self._cache if not wanted(key)]:
            del self._cache[key]

    def clear(self) -> None:
        """Drops everything."""
        self._cache.clear()

    @property
    def held_bytes(self) -> int:
        """Bytes of all values together, as last measured."""
        return int(self._cache.currsize)

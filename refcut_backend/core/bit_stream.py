"""Numbers of any width in a row of bits, highest bit first: written and read many at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDEST_READ = 25
WORD = 32


def join_codes(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes one behind the other, each in its own width (1..32 bits), as bytes; the last byte is filled up with zeros."""
    ends = np.cumsum(widths)
    starts = ends - widths
    # A code touches at most two words of 32 bits: it is placed in the 64 bits that begin with the first of them.
    placed = codes.astype(np.uint64) << (2 * WORD - widths - starts % WORD).astype(np.uint64)
    word_of_code = starts // WORD
    firsts = np.flatnonzero(np.diff(word_of_code, prepend=-1))
    joined = np.bitwise_or.reduceat(placed, firsts)
    begun = word_of_code[firsts]
    words = np.zeros(int(begun[-1]) + 2, np.uint64)
    words[begun] = joined >> np.uint64(WORD)
    words[begun + 1] |= joined & np.uint64((1 << WORD) - 1)
    return words.astype(">u4").view(np.uint8)[: -(-int(ends[-1]) // 8)]


class BitStream:
    """Bytes that are read from any bit on. size: number of bits."""

    def __init__(self, data: bytes) -> None:
        self.size = 8 * len(data)
        self._padded = data + bytes(WORD // 8)

    def read(self, at: int, width: int) -> int:
        """The number of `width` bits, at most 25, that begins at bit `at`; behind the end there are zeros."""
        place = at >> 3
        word = int.from_bytes(self._padded[place : place + 4], "big")
        return word >> (WORD - width - (at & 7)) & ((1 << width) - 1)

    def read_many(self, at: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """As `read`, for many places, none of them behind the end."""
        words: NDArray[np.uint32] = np.ndarray((self.size // 8 + 1,), ">u4", self._padded, strides=(1,))
        numbers: NDArray[np.int64] = words[at >> 3].astype(np.int64) >> (WORD - width - (at & 7))
        return numbers & ((1 << width) - 1)

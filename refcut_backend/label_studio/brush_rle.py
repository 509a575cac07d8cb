"""Encodes and decodes Label Studio's brush RLE: a mask as a list of bytes.

The format is that of label-studio-sdk's `converter.brush` and the editor's `@thi.ng/rle-pack`. A bit stream begins with

      32 bits  number of values: height * width * 4, because the mask is stored as an RGBA image, row by row
       5 bits  bits per value minus 1 (7 for 8 bits)
    4 x 4 bits  width minus 1 of each of the four classes of run length (the editor writes 3, 4, 8 and 16 bits)

and continues with runs:

         1 bit  1 for "repeat", 0 for "literal"
        2 bits  length class
    class width  length minus 1
    8 bits each  one value (repeat) or `length` values (literal)

The rest of the last byte is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import BadMaskError

WIDEST_READ = 25
WORD = 32


def join_codes(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Concatenates codes of different widths to bytes; zeros fill the last byte.

    Args:
        codes: Non-negative numbers, (N,) int64.
        widths: Number of bits of each code, 1..32, (N,) int64.
    """
    ends = np.cumsum(widths)
    starts = ends - widths
    # A code touches at most two 32-bit words. It is placed in the 64 bits that begin with the first of them.
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
    """Bytes that can be read from any bit on.

    Attributes:
        size: Number of bits.
    """

    def __init__(self, data: bytes) -> None:
        self.size = 8 * len(data)
        self._padded = data + bytes(WORD // 8)

    def read(self, at: int, width: int) -> int:
        """Returns the number of `width` bits, at most 25, that begins at bit `at`. Bits behind the end are zeros."""
        first = at >> 3
        word = int.from_bytes(self._padded[first : first + 4], "big")
        return word >> (WORD - width - (at & 7)) & ((1 << width) - 1)

    def read_many(self, at: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Reads a number at each of many bit positions, none of them behind the end. See `read`."""
        words: NDArray[np.uint32] = np.ndarray((self.size // 8 + 1,), ">u4", self._padded, strides=(1,))
        numbers: NDArray[np.int64] = words[at >> 3].astype(np.int64) >> (WORD - width - (at & 7))
        return numbers & ((1 << width) - 1)


CHANNELS = 4
LENGTH_BITS = (3, 4, 8, 16)
MAX_RUN = 1 << LENGTH_BITS[-1]
VALUE_BITS = 8
FIELD_BITS = (32, 5, 4, 4, 4, 4)
HEADER_BITS = sum(FIELD_BITS)
KIND_BITS = 3
"""A run begins with these bits: repeat or literal, and the length class."""
REPEAT = 0b100
MAX_BITS_PER_VALUE = KIND_BITS + LENGTH_BITS[-1] + VALUE_BITS
"""Used by the least efficient encoder: one run of the widest class for every value."""
MAX_TRAILING_BITS = 15
"""The editor fills the last byte; the SDK adds a whole byte if the last one is full."""
HINT = "draw the region again"


def encode(mask_hw: NDArray[np.bool_]) -> list[int]:
    """Encodes a mask (H, W) to the list of bytes (0..255) that Label Studio stores.

    All four channels of a foreground pixel are 255.

    >>> import numpy as np
    >>> decode(encode(np.eye(2, dtype=bool)), 2, 2).tolist()
    [[True, False], [False, True]]
    """
    flat = np.ascontiguousarray(mask_hw, dtype=bool).reshape(-1)
    starts = np.concatenate([np.arange(min(flat.size, 1)), np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths, values = _split_long(np.diff(starts, append=flat.size) * CHANNELS, flat[starts] * 255)
    classes = np.searchsorted(np.array([1 << bits for bits in LENGTH_BITS]), lengths)
    widths = np.array(LENGTH_BITS)[classes]
    codes = ((REPEAT | classes) << widths | (lengths - 1)) << VALUE_BITS | values
    header = (flat.size * CHANNELS, VALUE_BITS - 1, *(bits - 1 for bits in LENGTH_BITS))
    data = join_codes(
        np.concatenate([header, codes]), np.concatenate([FIELD_BITS, KIND_BITS + widths + VALUE_BITS])
    )
    return data.tolist()  # type: ignore[no-any-return]


def decode(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decodes bytes to a mask (height, width). A pixel is foreground if its fourth channel (alpha) is not zero.

    Raises:
        BadMaskError: The list declares another size, is too short or too long, or contains something that is not a byte.
            The error is raised before anything large is allocated.
    """
    stream = BitStream(_as_bytes(rle))
    count = height * width * CHANNELS
    length_bits = _read_header(stream, count)
    starts = _run_starts(stream, length_bits)
    runs = _read_runs(stream, np.array(starts, np.int64), np.array(length_bits), count)
    return _alpha(stream, runs).reshape(height, width)


def is_set(rle: Sequence[int], height: int, width: int, row: int, col: int) -> bool:
    """Returns the value of `decode` at one pixel, at about half the cost: it ignores all runs behind the pixel.

    Args:
        rle: Brush RLE.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        row: Row of the pixel, from the top.
        col: Column of the pixel, from the left.

    Raises:
        BadMaskError: The list declares another size, or ends before the pixel.
    """
    stream = BitStream(_as_bytes(rle))
    length_bits = _read_header(stream, height * width * CHANNELS)
    widest = max(length_bits)
    wanted, at, first = CHANNELS * (row * width + col) + CHANNELS - 1, HEADER_BITS, 0
    while at + KIND_BITS < stream.size:
        head = stream.read(at, KIND_BITS + widest)
        kind = head >> widest
        bits = length_bits[kind & ~REPEAT]
        length = (head >> widest - bits & (1 << bits) - 1) + 1
        value_at = at + KIND_BITS + bits
        if first + length > wanted:
            nth = 0 if kind & REPEAT else wanted - first
            return stream.read(value_at + VALUE_BITS * nth, VALUE_BITS) > 0
        first += length
        at = value_at + VALUE_BITS * (1 if kind & REPEAT else length)
    raise BadMaskError("a brush mask ends too early", hint=HINT)


@dataclass(frozen=True)
class _Runs:
    """Runs in their order.

    Attributes:
        repeats: Whether one value stands for the whole run.
        first: Index of each run's first value.
        lengths: Number of values of each run.
        value_at: Bit position of each run's value or first value.
    """

    repeats: NDArray[np.bool_]
    first: NDArray[np.int64]
    lengths: NDArray[np.int64]
    value_at: NDArray[np.int64]


def _read_header(stream: BitStream, count: int) -> list[int]:
    """Returns the widths of the length classes. Raises BadMaskError if the stream does not have `count` bytes."""
    if stream.size < HEADER_BITS:
        raise BadMaskError("a brush mask is cut short", hint=HINT)
    declared = stream.read(0, 16) << 16 | stream.read(16, 16)
    value_bits = stream.read(32, 5) + 1
    if declared != count or value_bits != VALUE_BITS:
        raise BadMaskError(
            f"a brush mask declares {declared} values of {value_bits} bits, the image has {count} of {VALUE_BITS}",
            hint="the region belongs to another image size; draw it again",
        )
    if stream.size > HEADER_BITS + count * MAX_BITS_PER_VALUE + MAX_TRAILING_BITS:
        raise BadMaskError("a brush mask is longer than its image allows", hint=HINT)
    return [stream.read(37 + 4 * number, 4) + 1 for number in range(4)]


def _run_starts(stream: BitStream, length_bits: Sequence[int]) -> list[int]:
    """Returns the bit positions of runs. The end of a run is known only from its first bits, so this is a loop."""
    value_of_kind = [KIND_BITS + bits for bits in length_bits]
    repeat_of_kind = [bits + VALUE_BITS for bits in value_of_kind]
    read, at, starts = stream.read, HEADER_BITS, []
    last = stream.size - min(repeat_of_kind)
    while at <= last:
        starts.append(at)
        kind = read(at, KIND_BITS)
        if kind & REPEAT:
            at += repeat_of_kind[kind ^ REPEAT]
        else:
            at += value_of_kind[kind] + VALUE_BITS * (read(at + KIND_BITS, length_bits[kind]) + 1)
    return starts


def _read_runs(
    stream: BitStream, starts: NDArray[np.int64], length_bits: NDArray[np.int64], count: int
) -> _Runs:
    """Returns the runs with exactly `count` values. Raises BadMaskError if there are fewer, or something follows."""
    widest = int(length_bits.max())
    heads = stream.read_many(starts, KIND_BITS + widest)
    kinds = heads >> widest
    widths = length_bits[kinds & ~REPEAT]
    lengths = ((heads & ((1 << widest) - 1)) >> (widest - widths)) + 1
    ends = np.cumsum(lengths)
    number = int(np.searchsorted(ends, count)) + 1 if count else 0
    if number > len(ends) or (number and ends[number - 1] != count):
        raise BadMaskError("a brush mask holds more or fewer values than it declares", hint=HINT)
    runs = _Runs(
        repeats=kinds[:number] >= REPEAT,
        first=(ends - lengths)[:number],
        lengths=lengths[:number],
        value_at=(starts + KIND_BITS + widths)[:number],
    )
    _check_end(stream, runs)
    return runs


def _check_end(stream: BitStream, runs: _Runs) -> None:
    end = HEADER_BITS
    if len(runs.lengths):
        end = int(runs.value_at[-1] + VALUE_BITS * (1 if runs.repeats[-1] else runs.lengths[-1]))
    left = stream.size - end
    if left < 0:
        raise BadMaskError("a brush mask ends too early", hint=HINT)
    if left > MAX_TRAILING_BITS or stream.read(end, left):
        raise BadMaskError("a brush mask continues after its end", hint=HINT)


def _alpha(stream: BitStream, runs: _Runs) -> NDArray[np.bool_]:
    """Returns whether each pixel's fourth value is not zero. A pixel belongs to the run with its fourth value."""
    before = runs.first // CHANNELS
    pixels = (runs.first + runs.lengths) // CHANNELS - before
    mask = np.repeat(stream.read_many(runs.value_at, VALUE_BITS) > 0, pixels)
    literal = np.flatnonzero(~runs.repeats & (pixels > 0))
    if len(literal):
        run = np.repeat(literal, pixels[literal])
        nth = np.arange(len(run)) - np.repeat(np.cumsum(pixels[literal]) - pixels[literal], pixels[literal])
        pixel = before[run] + nth
        inside = CHANNELS * pixel + CHANNELS - 1 - runs.first[run]
        mask[pixel] = stream.read_many(runs.value_at[run] + VALUE_BITS * inside, VALUE_BITS) > 0
    return mask


def _split_long(
    lengths: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits runs that are longer than the widest class allows."""
    pieces = -(-lengths // MAX_RUN)
    values = np.repeat(values, pieces)
    split = np.full(len(values), MAX_RUN)
    last = np.cumsum(pieces) - 1
    split[last] = lengths - (pieces - 1) * MAX_RUN
    return split, values


def _as_bytes(rle: Sequence[int]) -> bytes:
    try:
        if not isinstance(rle, Sequence):
            raise TypeError
        return bytes(rle)
    except (TypeError, ValueError, OverflowError):
        raise BadMaskError("a brush mask is not a list of bytes", hint=HINT) from None

"""Label Studio's brush RLE: a mask as a list of bytes, both ways.

Format (label-studio-sdk's `converter.brush`, the editor's `@thi.ng/rle-pack`): a bit stream of
    32 bits  number of values (height * width * 4: the mask is stored as an RGBA image, row by row)
     5 bits  bits per value, minus 1 (7 = 8 bits)
  4 x 4 bits width, minus 1, of the four classes of run length (the editor writes 3, 4, 8, 16 bits)
and then runs: 1 bit "repeat" or "literal", 2 bits length class, the length minus 1 in that class's width, and one value
(repeat) or as many values as the length says (literal).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import BadMaskError

CHANNELS = 4
LENGTH_BITS = (3, 4, 8, 16)
MAX_RUN = 1 << LENGTH_BITS[-1]
HEADER_BITS = 32 + 5 + 4 * len(LENGTH_BITS)
VALUE_BITS = 8


def encode(mask_hw: NDArray[np.bool_]) -> list[int]:
    """Mask (H, W) to the list of bytes (0..255) that Label Studio stores. Foreground has all four channels at 255."""
    flat = np.ascontiguousarray(mask_hw).reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes]) if flat.size else np.zeros(0, np.int64)
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * CHANNELS if flat.size else starts
    values = flat[starts].astype(np.int64) * 255 if flat.size else starts
    lengths, values = _split_long(lengths, values)
    classes = np.searchsorted(np.array([1 << bits for bits in LENGTH_BITS]), lengths)
    widths = np.array(LENGTH_BITS)[classes]
    # One run is at most 1 + 2 + 16 + 8 = 27 bits: it fits one integer, written from its highest bit on.
    codes = (((1 << 2 | classes) << widths | (lengths - 1)) << VALUE_BITS) | values
    bits = _bits_of(codes, 3 + widths + VALUE_BITS)
    return np.packbits(np.concatenate([_header(flat.size * CHANNELS), bits])).tolist()  # type: ignore[no-any-return]


def decode(rle: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Bytes to mask (H, W); foreground is where the fourth channel (alpha) is not zero.

    Raises BadMaskError before anything large is allocated when the list does not declare exactly this size, is cut
    short, or holds what is no byte.
    """
    data = _as_bytes(rle)
    bits = np.unpackbits(data)
    if len(bits) < HEADER_BITS:
        raise BadMaskError("a brush mask is cut short", hint="draw the region again")
    count, value_bits = _number(bits, 0, 32), _number(bits, 32, 5) + 1
    if count != height * width * CHANNELS or value_bits != VALUE_BITS:
        raise BadMaskError(
            f"a brush mask declares {count} values of {value_bits} bits, the image has {height * width * CHANNELS} of 8",
            hint="the region belongs to another image size; draw it again",
        )
    length_bits = [_number(bits, 37 + 4 * place, 4) + 1 for place in range(4)]
    return _expand(bits, count, length_bits).reshape(height, width, CHANNELS)[..., 3] > 0


def _expand(bits: NDArray[np.uint8], count: int, length_bits: list[int]) -> NDArray[np.uint8]:
    out = np.zeros(count, np.uint8)
    position, filled = HEADER_BITS, 0
    while filled < count:
        if position + 3 > len(bits):
            raise BadMaskError("a brush mask ends too early", hint="draw the region again")
        repeat = bits[position]
        width = length_bits[_number(bits, position + 1, 2)]
        length = _number(bits, position + 3, width) + 1
        position += 3 + width
        needed = VALUE_BITS if repeat else VALUE_BITS * length
        if filled + length > count or position + needed > len(bits):
            raise BadMaskError(
                "a brush mask holds more or fewer values than it declares", hint="draw it again"
            )
        out[filled : filled + length] = np.packbits(bits[position : position + needed])
        position += needed
        filled += length
    return out


def _split_long(
    lengths: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Runs longer than the widest class as several runs."""
    pieces = -(-lengths // MAX_RUN)
    values = np.repeat(values, pieces)
    split = np.full(len(values), MAX_RUN)
    last = np.cumsum(pieces) - 1
    split[last] = lengths - (pieces - 1) * MAX_RUN
    return split, values


def _bits_of(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """All codes as one bit stream, each in its own width, highest bit first."""
    total = int(widths.sum())
    ends = np.cumsum(widths)
    code_of_bit = np.repeat(np.arange(len(codes)), widths)
    shift = ends[code_of_bit] - 1 - np.arange(total)
    return ((codes[code_of_bit] >> shift) & 1).astype(np.uint8)


def _header(count: int) -> NDArray[np.uint8]:
    fields = [(count, 32), (VALUE_BITS - 1, 5), *((bits - 1, 4) for bits in LENGTH_BITS)]
    codes = np.array([value for value, _ in fields], np.int64)
    return _bits_of(codes, np.array([width for _, width in fields], np.int64))


def _number(bits: NDArray[np.uint8], start: int, width: int) -> int:
    if start + width > len(bits):
        raise BadMaskError("a brush mask is cut short", hint="draw the region again")
    value = 0
    for bit in bits[start : start + width].tolist():
        value = value << 1 | bit
    return value


def _as_bytes(rle: Sequence[int]) -> NDArray[np.uint8]:
    try:
        values = np.asarray(rle, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        raise BadMaskError("a brush mask is not a list of bytes", hint="draw the region again") from None
    if values.ndim != 1 or (len(values) and (values.min() < 0 or values.max() > 255)):
        raise BadMaskError("a brush mask is not a list of bytes", hint="draw the region again")
    return values.astype(np.uint8)

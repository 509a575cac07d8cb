"""Cuts masks out of JSON that is not parsed yet: a task comes with every mask that has been accepted on it."""

from __future__ import annotations

import re

_MASK = re.compile(rb'("rle"\s*+:\s*+\[)[\d,\s]++(?=\])')
"""A key `rle` with a list of bytes. Inside a JSON string its quotes would be escaped, so nothing else can match."""


def without_masks(body: bytes) -> bytes:
    """JSON in which every list of numbers under a key `rle` is empty: megabytes less to parse. The key stays."""
    return _MASK.sub(rb"\1", body)

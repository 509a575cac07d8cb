from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.label_studio.brush_rle import WIDEST_READ, BitStream, join_codes

numbers = st.integers(1, 32).flatmap(lambda width: st.tuples(st.integers(0, 2**width - 1), st.just(width)))


@given(st.lists(numbers, min_size=1, max_size=50))
def test_codes_are_joined_bit_by_bit(codes):
    joined = join_codes(np.array([c for c, _ in codes]), np.array([w for _, w in codes]))
    bits = "".join(f"{code:0{width}b}" for code, width in codes)
    assert joined.tolist() == [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]


@given(st.binary(max_size=20), st.integers(1, WIDEST_READ), st.data())
def test_numbers_are_read_at_any_bit_one_by_one_and_many_at_once(data, width, draw):
    stream = BitStream(data)
    bits = "".join(f"{byte:08b}" for byte in data) + "0" * 40
    places = draw.draw(st.lists(st.integers(0, stream.size), max_size=10))
    expected = [int(bits[at : at + width], 2) for at in places]
    assert [stream.read(at, width) for at in places] == expected
    assert stream.read_many(np.array(places, np.int64), width).tolist() == expected

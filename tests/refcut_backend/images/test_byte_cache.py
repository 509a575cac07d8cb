from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.images.cache import ByteCache


def test_the_least_recently_used_goes_first():
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.keep("a", b"12345")
    cache.keep("b", b"12345")
    assert cache.get("a") is not None
    cache.keep("c", b"1")
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert cache.held_bytes == 6


def test_a_value_that_grew_is_measured_again_and_may_push_others_out():
    cache: ByteCache[str, list[int]] = ByteCache(10, len)
    grown = [1]
    cache.keep("a", [1] * 5)
    cache.keep("b", grown)
    grown += [1] * 6
    cache.keep("b", grown)
    assert ("a" in cache, "b" in cache, cache.held_bytes) == (False, True, 7)
    grown += [1] * 6
    cache.keep("b", grown)
    assert ("b" in cache, cache.held_bytes, len(cache)) == (False, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=15)), max_size=40))
def test_the_limit_holds_whatever_is_kept(steps):
    cache: ByteCache[int, bytes] = ByteCache(10, len)
    for key, value in steps:
        cache.keep(key, value)
        assert cache.held_bytes <= 10
        assert (cache.get(key) == value) == (len(value) <= 10)

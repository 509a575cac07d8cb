"""tests/refcut_backend/images/test_cache.py."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import ImageError
from refcut_backend.images import fetch
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import RECHECK_LIMIT_S, ByteCache, ImageCache
from refcut_backend.images.fetch import UNKNOWN, Fetched, Stamp
from refcut_backend.images.prefetch import FRESH_S, MAX_STARTED, Prefetcher

HERE = TaskImage(1, 2, "/a.png")
ELSEWHERE = TaskImage(1, 3, "/b.png")
WITHDRAWN = fetch._StatusError(404, "gone", hint="look", withdrawn=True)
AWAY = ImageError("Label Studio is away", hint="start it")


class Source:
    """One file at every address, with a stamp that changes with it."""

    def __init__(self) -> None:
        self.data = b"one"
        self.with_stamp = True
        self.problem: Exception | None = None
        self.asked: list[tuple[str, bool, float]] = []
        self.gate: threading.Event | None = None
        self.now = 0.0

    def fetch(self, where: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        self.asked.append((where.address, known != UNKNOWN, limit_s))
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.problem is not None:
            raise self.problem
        stamp = Stamp(etag=self.data.decode()) if self.with_stamp else UNKNOWN
        return Fetched(None if stamp == known != UNKNOWN else self.data, stamp)

    @staticmethod
    def decode(data: bytes) -> np.ndarray:
        return np.full((len(data), 4, 3), data[0], np.uint8)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def source() -> Source:
    return Source()


def cache_of(source: Source, max_bytes: int = 1000) -> ImageCache:
    return ImageCache(
        source.fetch, source.decode, max_bytes=max_bytes, limit_s=6, recheck_s=60, clock=source.clock
    )


def test_an_image_is_asked_for_once_while_it_is_young(source):
    image_cache = cache_of(source)
    for source.now in (0, 30, 59):
        assert image_cache.open(HERE).height == 3
    assert source.asked == [("/a.png", False, 6)]


def test_an_older_image_is_compared_and_kept_when_it_is_the_same(source):
    image_cache = cache_of(source)
    first = image_cache.open(HERE)
    for source.now in (60, 90):
        assert image_cache.open(HERE) is first
    assert source.asked[1:] == [("/a.png", True, RECHECK_LIMIT_S)]


@pytest.mark.parametrize("with_stamp", [True, False])
def test_a_changed_image_is_found_by_its_content(source, with_stamp):
    source.with_stamp = with_stamp
    image_cache = cache_of(source)
    first = image_cache.open(HERE)
    source.data, source.now = b"other", 60
    second = image_cache.open(HERE)
    assert (first.height, second.height) == (3, 5)
    assert first.content != second.content


def test_the_same_bytes_at_two_addresses_are_one_image(source):
    image_cache = cache_of(source)
    assert image_cache.open(HERE) is image_cache.open(ELSEWHERE)
    assert image_cache.nbytes == 36


def test_clicks_go_on_while_label_studio_is_away_and_do_not_ask_at_every_turn(source, caplog):
    image_cache = cache_of(source)
    image_cache.open(HERE)
    image_cache.open(ELSEWHERE)
    source.problem, source.now = AWAY, 60
    with caplog.at_level(logging.WARNING):
        assert [image_cache.open(where).height for where in (HERE, ELSEWHERE, HERE)] == [3, 3, 3]
    assert len(source.asked) == 3
    assert "not compared" in caplog.text
    source.problem, source.data, source.now = None, b"other", 120
    assert image_cache.open(HERE).height == 5


def test_an_image_that_label_studio_withdraws_is_not_used_any_more(source):
    image_cache = cache_of(source)
    image_cache.open(HERE)
    source.problem, source.now = WITHDRAWN, 60
    for _ in range(2):
        with pytest.raises(ImageError, match="gone"):
            image_cache.open(HERE)


def test_the_hash_of_an_evicted_image_is_known_and_compared_without_a_body(source):
    image_cache = cache_of(source, max_bytes=40)
    content = image_cache.open(HERE).content
    source.data = b"tow"
    image_cache.open(ELSEWHERE)
    source.data = b"one"
    assert image_cache.content_of(HERE) == content
    source.now = 60
    assert image_cache.content_of(HERE) == content
    assert source.asked[2:] == [("/a.png", True, RECHECK_LIMIT_S)]
    assert image_cache.open(HERE).content == content
    assert source.asked[-1] == ("/a.png", False, 6)


def test_large_images_are_worked_on_smaller_and_small_ones_as_they_are(source):
    image_cache = ImageCache(
        lambda *_: Fetched(b"x", UNKNOWN),
        lambda _data: np.zeros((10, 20_000, 3), np.uint8),
        max_bytes=10**6,
        limit_s=6,
        recheck_s=60,
    )
    image = image_cache.open(HERE)
    assert (image.height, image.width, image.pixels.shape) == (10, 20_000, (1, 1280, 3))


def test_an_image_begun_is_handed_to_the_one_who_asks_next(source):
    image_cache = cache_of(source)
    source.gate = threading.Event()
    coming = image_cache.begin(HERE)
    assert coming is not None
    assert not coming.done()
    source.gate.set()
    assert image_cache.open(HERE).height == 3
    assert len(source.asked) == 1


def test_no_more_is_begun_at_once_than_memory_allows(source):
    prefetcher = Prefetcher(source.fetch, source.clock)
    source.gate = threading.Event()
    images = [TaskImage(1, number, "/a.png") for number in range(MAX_STARTED + 1)]
    started = [prefetcher.begin(image, UNKNOWN, 6) for image in images]
    assert [future is None for future in started] == [False] * MAX_STARTED + [True]
    source.gate.set()
    for future in started[:MAX_STARTED]:
        assert future is not None
        future.result(timeout=60)
    assert prefetcher.begin(images[-1], UNKNOWN, 6) is not None


def test_an_outcome_that_grew_old_is_not_used(source):
    prefetcher = Prefetcher(source.fetch, source.clock)
    source.problem = AWAY
    coming = prefetcher.begin(HERE, UNKNOWN, 6)
    assert coming is not None
    assert coming.exception(timeout=60) is AWAY
    source.problem, source.now = None, FRESH_S + 1
    assert prefetcher.fetch(HERE, UNKNOWN, 6).data == b"one"


def test_a_fetch_that_was_begun_is_waited_for_no_longer_than_another(source):
    prefetcher = Prefetcher(source.fetch, source.clock)
    source.gate = threading.Event()
    prefetcher.begin(HERE, UNKNOWN, 6)
    with pytest.raises(ImageError, match="REFCUT_IMAGE_TIMEOUT_S"):
        prefetcher.fetch(HERE, UNKNOWN, 0.05)
    source.gate.set()


def test_the_least_recently_used_goes_first():
    cache: ByteCache[str, bytes] = ByteCache(10, len)
    cache.store("a", b"12345")
    cache.store("b", b"12345")
    assert cache.get("a") is not None
    cache.store("c", b"1")
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert cache.nbytes == 6


def test_a_value_that_grew_is_measured_again_and_may_push_others_out():
    cache: ByteCache[str, list[int]] = ByteCache(10, len)
    grown = [1]
    cache.store("a", [1] * 5)
    cache.store("b", grown)
    grown += [1] * 6
    cache.store("b", grown)
    assert ("a" in cache, "b" in cache, cache.nbytes) == (False, True, 7)
    grown += [1] * 6
    cache.store("b", grown)
    assert ("b" in cache, cache.nbytes, len(cache)) == (False, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=15)), max_size=40))
def test_the_limit_holds_whatever_is_kept(steps):
    cache: ByteCache[int, bytes] = ByteCache(10, len)
    for key, value in steps:
        cache.store(key, value)
        assert cache.nbytes <= 10
        assert (cache.get(key) == value) == (len(value) <= 10)

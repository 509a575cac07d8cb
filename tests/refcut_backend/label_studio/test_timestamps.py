from __future__ import annotations

import pytest

from refcut_backend.label_studio.payloads import earlier, sortable


def test_times_sort_as_text_whether_or_not_label_studio_writes_a_fraction():
    written = ["2026-11-22T10:14:47.994758Z", "2026-11-22T10:14:48Z", "2026-11-22T10:14:48.000001Z"]
    assert sorted(map(sortable, written)) == [sortable(time) for time in written]


def test_a_time_in_another_zone_sorts_by_what_it_means():
    assert sortable("2026-11-22T12:00:00+02:00") == sortable("2026-11-22T10:00:00Z")


@pytest.mark.parametrize("text", ["", "2026", "yesterday"])
def test_what_is_no_time_stays_as_it_is(text):
    assert sortable(text) == text


def test_some_seconds_earlier():
    assert earlier(sortable("2026-01-01T00:00:30Z"), 60) == sortable("2025-12-31T23:59:30Z")

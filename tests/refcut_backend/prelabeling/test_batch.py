"""Which requests for predictions are answered, and how fast."""

from __future__ import annotations

import pytest

from refcut_backend.prelabeling.batch import PrelabelRules
from refcut_backend.settings import Settings


def test_nothing_is_prelabelled_unless_it_is_switched_on(monkeypatch):
    monkeypatch.delenv("REFCUT_PRELABEL", raising=False)
    rules = PrelabelRules.of(Settings())
    assert not rules.is_on
    assert (rules.limit_s(1), rules.limit_s(2)) == (None, None)


@pytest.mark.parametrize(("when", "limits"), [("open", (3, None)), ("batch", (3, 60))])
def test_open_is_for_single_tasks_and_batch_for_any_number(when, limits, monkeypatch):
    monkeypatch.setenv("REFCUT_PRELABEL", when)
    monkeypatch.setenv("REFCUT_PRELABEL_OPEN_TIMEOUT_S", "3")
    monkeypatch.setenv("REFCUT_PRELABEL_BATCH_TIMEOUT_S", "60")
    rules = PrelabelRules.of(Settings())
    assert rules.is_on
    assert (rules.limit_s(1), rules.limit_s(7)) == limits


def test_an_answer_is_ready_before_label_studio_gives_up():
    assert PrelabelRules().batch_limit_s < 100

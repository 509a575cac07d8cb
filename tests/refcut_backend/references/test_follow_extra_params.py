"""Extra parameters as they come with every /setup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.label_studio_api import LabelStudioApi
from tests.support.registry import DOOR, WHEEL, Registry, marked, open_registry

API = LabelStudioApi()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path) as opened:
        opened.connect(API)
        yield opened


@pytest.mark.parametrize("encode", [lambda said: said, json.dumps], ids=["object", "text"])
def test_extra_parameters_pin_and_disable_and_are_taken_back_with_them(registry, encode):
    for number in (1, 2):
        registry.follow(API.annotate(number, 10 * number, DOOR, WHEEL, marked(DOOR), marked(WHEEL)))
    said = {"pin": {"Door": [{"task": 10}]}, "disable": ["Wheel"]}
    assert registry.follower.follow_extra_params(7, encode(said))
    assert not registry.follower.follow_extra_params(7, encode(said))
    assert (registry.in_use("Door"), registry.in_use("Wheel")) == ([1], [])
    assert registry.follower.follow_extra_params(7, None)
    assert (sorted(registry.in_use("Door")), sorted(registry.in_use("Wheel"))) == ([1, 2], [1, 2])


def test_tasks_that_extra_parameters_no_longer_name_are_no_references(registry):
    registry.follower.follow_extra_params(7, {"references": {"Door": [{"task": 10}]}})
    registry.follow(API.annotate(1, 10, DOOR))
    assert registry.in_use() == [1]
    registry.follower.follow_extra_params(7, {})
    assert registry.state() == set()


@pytest.mark.parametrize(
    "said", ["{not json", {"pin": 3}, {"disable": ["x" * 2**20]}, 17, '"\\ud800"', {"disable": ["\ud800"]}]
)
def test_what_cannot_be_read_is_said_once_and_the_last_parameters_stay_in_force(registry, caplog, said):
    registry.follow(API.annotate(1, 10, DOOR, marked(DOOR)))
    registry.follower.follow_extra_params(7, {"disable": ["Door"]})
    for _ in range(3):
        assert not registry.follower.follow_extra_params(7, said)
    (record,) = [r for r in caplog.records if r.message == "extra parameters not used"]
    assert "docs/references.md" in record.problem
    assert registry.in_use() == []


def test_keys_that_mean_nothing_are_named_in_the_log(registry, caplog):
    registry.follower.follow_extra_params(7, {"refrences": {}})
    assert ["refrences"] in [getattr(record, "keys", None) for record in caplog.records]

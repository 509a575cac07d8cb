"""tests/refcut_backend/references/test_owner_rules.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.references.owner_rules import MAX_BYTES, OwnerRules, read_extra_params
from refcut_backend.references.selection import Action, OwnerRule

EXTRA_PARAMS: dict[str, Any] = {
    "references": {"Wheel": [{"task": 12, "annotation": 40}, {"task": 15}]},
    "pin": {"Door": [{"task": 3}]},
    "disable": ["Hood", {"label": "Wheel", "task": 7, "annotation": 8}],
}


@pytest.mark.parametrize("extra_params", [EXTRA_PARAMS, json.dumps(EXTRA_PARAMS)])
def test_an_object_and_its_json_text_say_the_same(extra_params):
    assert read_extra_params(extra_params).rules == (
        OwnerRule(Action.ADD, "Wheel", 12, 40),
        OwnerRule(Action.ADD, "Wheel", 15),
        OwnerRule(Action.PIN, "Door", 3),
        OwnerRule(Action.DISABLE, "Hood"),
        OwnerRule(Action.DISABLE, "Wheel", 7, 8),
    )


@pytest.mark.parametrize("extra_params", [None, "", {}, "{}", "null"])
def test_no_parameters_are_no_rule(extra_params):
    assert read_extra_params(extra_params).rules == ()


def test_a_label_may_say_which_pieces_stay_until_the_parameters_say_otherwise(engine):
    rules = OwnerRules(engine)
    found = read_extra_params({"pieces": {"Shoes": "all", "Door": "clicked"}})
    rules.replace_extra_params(7, found)
    rules.replace_extra_params(8, read_extra_params({}))
    assert [rules.pieces(7, label) for label in ("Shoes", "Door", "Hood")] == ["all", "clicked", "auto"]
    assert rules.pieces(8, "Shoes") == "auto"
    rules.replace_extra_params(7, read_extra_params({"pieces": {"Door": "all"}}))
    assert [rules.pieces(7, label) for label in ("Shoes", "Door")] == ["auto", "all"]


def test_keys_that_mean_nothing_are_named_and_the_rest_is_used():
    found = read_extra_params({"refrences": {}, "disable": ["Hood"]})
    assert found.unknown_keys == ("refrences",)
    assert found.rules == (OwnerRule(Action.DISABLE, "Hood"),)


@pytest.mark.parametrize(
    ("extra_params", "expected"),
    [
        ("{not json", "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("[1]", "not a JSON object"),
        (7, "not a JSON object"),
        ({"pin": ["Door"]}, "pin"),
        ({"references": {"Wheel": [{"task": 0}]}}, "references.Wheel.0.task"),
        ({"references": {"Wheel": [{"task": "12"}]}}, "references.Wheel.0.task"),
        ({"references": {"Wheel": [{"task": 1, "anotation": 2}]}}, "anotation"),
        ({"disable": [{"task": 1}]}, "disable"),
        ({"pieces": {"Door": "one"}}, "pieces.Door"),
        ({"disable": ["x" * 2**20]}, str(MAX_BYTES)),
        ("x" * 2**20, str(MAX_BYTES)),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place_and_without_its_value(extra_params, expected):
    with pytest.raises(ConfigError) as error:
        read_extra_params(extra_params)
    assert expected in str(error.value)
    assert len(str(error.value)) < 300

from __future__ import annotations

import pytest

from model.evaluation.modes import MODE_GROUPS, Mode, parse_modes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("right", Mode("right", "right")),
        ("none+jitter", Mode("none+jitter", "none", jitter=True)),
        ("right+refs4", Mode("right+refs4", "right", references=4)),
        ("positive+polygon8+scale0.5", Mode("positive+polygon8+scale0.5", "positive", 1, 8, 0.5)),
    ],
)
def test_a_mode_is_spelled_as_a_reference_and_changes(text: str, expected: Mode) -> None:
    assert Mode.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["left", "", "right+refs0", "right+polygon3", "right+scale0", "right+scale2", "right+blur", "none+refs2"],
)
def test_a_mode_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        Mode.parse(text)


def test_groups_stand_for_their_modes_and_each_runs_once() -> None:
    names = [mode.name for mode in parse_modes(["none", "table3", "right"])]
    assert names == ["none", "right", "positive", "negative"]


def test_everything_the_paper_and_the_issue_ask_for_is_in_the_group_all() -> None:
    modes = parse_modes(["all"])
    assert {mode.reference for mode in modes} == {"right", "none", "positive", "negative", "wrong"}
    assert {mode.references for mode in modes} == {1, 2, 4}
    assert {name for group in MODE_GROUPS.values() for name in group} == {mode.name for mode in modes}

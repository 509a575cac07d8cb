from __future__ import annotations

from pathlib import Path

import pytest

from model.data.annotated_objects import AnnotatedObject
from model.evaluation.modes import Mode
from model.evaluation.references import ReferenceChoice, ReferenceFinder
from model.evaluation.samples import Sample
from tests.support.colour_world import make_annotated_object

ALL = ("door", "mirror", "roof", "wheel")
RIGHT = Mode.parse("right")
WHEEL = ("wheel",)


def objects_with(folder: Path, *parts: tuple[str, ...]) -> list[AnnotatedObject]:
    """Annotated objects 0, 1, ... in the order of their file names."""
    return [make_annotated_object(folder / f"{number}.png", names) for number, names in enumerate(parts)]


@pytest.mark.parametrize(("own", "expected"), [(0, [2, 3]), (2, [3, 0]), (3, [0, 2])])
def test_reference_is_the_next_with_the_part_and_wraps_around(
    tmp_path: Path, own: int, expected: list[int]
) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ("door", "roof"), ALL, ALL))
    assert list(finder.following(Sample(own, "single", WHEEL))) == expected


def test_a_sample_is_never_its_own_reference(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ("door", "roof")))
    assert finder.choose(Sample(0, "single", WHEEL), RIGHT) == []


def test_another_object_on_the_same_photograph_is_no_reference(tmp_path: Path) -> None:
    annotated_object = make_annotated_object(tmp_path / "a.png", ALL)
    assert (
        ReferenceFinder([annotated_object, annotated_object]).choose(Sample(0, "single", WHEEL), RIGHT) == []
    )


def test_an_object_of_another_class_is_no_reference(tmp_path: Path) -> None:
    bicycle = make_annotated_object(tmp_path / "b.png", ALL, object_class="bicycle")
    finder = ReferenceFinder([make_annotated_object(tmp_path / "a.png", ALL), bicycle])
    assert finder.choose(Sample(0, "single", WHEEL), RIGHT) == []


def test_names_that_do_not_carry_over_have_no_reference(tmp_path: Path) -> None:
    annotated_objects = [
        make_annotated_object(tmp_path / f"{name}.png", ALL, names_carry=False) for name in "ab"
    ]
    assert ReferenceFinder(annotated_objects).choose(Sample(0, "single", WHEEL), RIGHT) == []


@pytest.mark.parametrize(
    ("mode", "positive", "negative"),
    [
        ("right", ("door", "wheel"), ("mirror", "roof")),
        ("positive", ("door", "wheel"), ()),
        ("negative", (), ("mirror", "roof")),
        ("wrong", ("mirror", "roof"), ("door", "wheel")),
    ],
)
def test_masks_of_a_reference_follow_the_mode(
    tmp_path: Path, mode: str, positive: tuple[str, ...], negative: tuple[str, ...]
) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ALL))
    choices = finder.choose(Sample(0, "pair", ("door", "wheel")), Mode.parse(mode))
    assert choices == [ReferenceChoice(1, positive, negative)]


def test_a_whole_object_takes_the_next_whole_whatever_its_parts(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ("wheel",), ("door", "roof")))
    assert finder.choose(Sample(0, "whole", ALL), RIGHT) == [ReferenceChoice(2, ("door", "roof"), ())]


def test_a_wrong_reference_of_a_whole_shows_one_part(tmp_path: Path) -> None:
    choice = ReferenceFinder(objects_with(tmp_path, ALL, ALL)).choose(
        Sample(0, "whole", ALL), Mode.parse("wrong")
    )[0]
    assert len(choice.positive) == 1
    assert set(choice.positive + choice.negative) == set(ALL)


def test_a_wrong_reference_passes_over_objects_that_have_only_the_right_part(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, WHEEL, ("door", "wheel")))
    assert finder.choose(Sample(0, "single", WHEEL), Mode.parse("wrong")) == [
        ReferenceChoice(2, ("door",), WHEEL)
    ]


def test_as_many_references_as_asked_for_or_as_there_are(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ALL, ALL, ALL))
    chosen = [
        finder.choose(Sample(1, "single", WHEEL), Mode.parse(f"right+refs{count}")) for count in (1, 2, 4)
    ]
    assert [[choice.annotated_object for choice in choices] for choices in chosen] == [[2], [2, 3], [2, 3, 0]]


def test_without_a_reference_none_is_chosen(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ALL))
    assert finder.choose(Sample(0, "single", WHEEL), Mode.parse("none")) == []


def test_a_repeat_has_the_next_reference_in_line(tmp_path: Path) -> None:
    finder = ReferenceFinder(objects_with(tmp_path, ALL, ALL, ALL, ALL))
    chosen = [
        [choice.annotated_object for choice in finder.choose(Sample(1, "single", WHEEL, repeat), mode)]
        for mode in (RIGHT, Mode.parse("right+refs2"))
        for repeat in (0, 1, 2, 3)
    ]
    assert chosen == [[2], [3], [0], [2], [2, 3], [3, 0], [0, 2], [2, 3]]


def test_a_repeat_without_any_reference_has_none(tmp_path: Path) -> None:
    assert ReferenceFinder(objects_with(tmp_path, ALL)).choose(Sample(0, "single", WHEEL, 1), RIGHT) == []

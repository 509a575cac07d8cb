from __future__ import annotations

import tracemalloc

import pytest

from refcut_backend.errors import LabelConfigError
from refcut_backend.label_studio.label_config import label_order, problems, read_label_config
from refcut_backend.label_studio.payloads import MAX_CONFIG_CHARS
from tests.support.recorded import LABEL_CONFIG, backend_request


def config(controls: str) -> str:
    return f"""<View><Image name="image" value="$image"/><Image name="second" value="$other"/>{controls}
        <Choices name="role" toName="image" perRegion="true"><Choice value="Reference"/></Choices></View>"""


def tag(kind: str, *labels: str, name: str = "", to: str = "image", smart: str = "false") -> str:
    attribute = f' smart="{smart}"' if smart else ""
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<{kind}Labels name="{name or kind.lower()}" toName="{to}"{attribute}>{inside}</{kind}Labels>'


CLICKS = tag("KeyPoint", "Door", smart="true")


def test_the_shipped_config_has_no_problems():
    controls = read_label_config(LABEL_CONFIG)
    assert problems(controls) == []
    assert controls.roles == {"refcut_role"}
    assert controls.mask_control("Wheel", "image").name == "brush"
    assert controls.mask_control("Wheel", "image").image_value == "$image"


def test_a_recorded_config_without_a_reference_choice_says_so():
    controls = read_label_config(backend_request("api_list_ml", "/setup")["schema"])
    assert [problem for problem in problems(controls) if "Reference" in problem]


@pytest.mark.parametrize("xml", ["<View>", "not xml"])
def test_what_is_no_label_config_is_refused_with_a_pattern_to_follow(xml):
    with pytest.raises(LabelConfigError, match="label_config/"):
        read_label_config(xml)


@pytest.mark.parametrize("xml", ["", "<View/>", "<View><Image name='i'/></View>"])
def test_a_config_without_controls_lists_all_that_is_missing(xml):
    assert len(problems(read_label_config(xml))) == 3


def test_promise_25_a_label_that_nothing_takes_masks_of_is_named():
    controls = read_label_config(config(tag("KeyPoint", "Door", "Hood", smart="true") + tag("Brush", "Door")))
    (problem,) = problems(controls)
    assert "['Hood']" in problem
    with pytest.raises(LabelConfigError, match="Hood"):
        controls.mask_control("Hood", "image")


def test_promise_25_masks_on_another_image_tag_do_not_count():
    controls = read_label_config(config(CLICKS + tag("Brush", "Door", to="second")))
    (problem,) = problems(controls)
    assert "'image'" in problem
    with pytest.raises(LabelConfigError, match="'image'"):
        controls.mask_control("Door", "image")
    assert controls.mask_control("Door", "second").image_value == "$other"


@pytest.mark.parametrize(
    ("tags", "preferred", "expected"),
    [
        (("Brush", "Polygon", "Rectangle"), "brush", "brush"),
        (("Rectangle", "Polygon", "Brush"), "brush", "brush"),
        (("Rectangle", "Polygon"), "brush", "polygon"),
        (("Rectangle",), "brush", "rectangle"),
        (("Brush", "Polygon", "Rectangle"), "polygon", "polygon"),
        (("Brush", "Polygon", "Rectangle"), "rectangle", "rectangle"),
        (("Polygon", "Rectangle"), "brush", "polygon"),
    ],
)
def test_brush_comes_before_polygon_before_rectangle_unless_another_is_preferred(tags, preferred, expected):
    controls = read_label_config(config(CLICKS + "".join(tag(kind, "Door") for kind in tags)))
    assert problems(controls) == []
    assert controls.mask_control("Door", "image", preferred).name == expected


def test_a_kind_that_lacks_the_label_is_passed_over():
    controls = read_label_config(config(CLICKS + tag("Brush", "Hood") + tag("Polygon", "Door")))
    assert controls.mask_control("Door", "image").kind == "polygon"


def test_a_smart_rectangle_is_for_boxes_and_takes_no_masks():
    controls = read_label_config(config(tag("Rectangle", "Door", smart="true") + tag("Brush", "Door")))
    assert problems(controls) == [], "boxes alone are enough to work with"
    assert [control.name for control in controls.boxes] == ["rectangle"]
    assert controls.mask_control("Door", "image", "rectangle").kind == "brush"


@pytest.mark.parametrize("smart", ["", "true"])
def test_a_mask_tool_that_label_studio_takes_for_smart_is_named(smart):
    (problem,) = problems(read_label_config(config(CLICKS + tag("Brush", "Door", smart=smart))))
    assert "'brush'" in problem
    assert 'smart="false"' in problem


@pytest.mark.parametrize("name", ["Negative", "negative", "BACKGROUND", " Background "])
def test_a_negative_label_needs_no_masks(name):
    controls = read_label_config(config(tag("KeyPoint", "Door", name, smart="true") + tag("Brush", "Door")))
    assert problems(controls) == []
    assert controls.is_negative_label(name, "image")
    assert not controls.is_negative_label("Door", "image")


def test_a_label_called_background_that_takes_masks_is_not_negative():
    both = tag("KeyPoint", "Background", smart="true") + tag("Brush", "Background")
    assert not read_label_config(config(both)).is_negative_label("Background", "image")


@pytest.mark.parametrize(("name", "step"), [("Larger", 1), (" LARGER ", 1), ("smaller", -1), ("Large", 0)])
def test_the_labels_smaller_and_larger_step_masks_unless_a_control_takes_masks_of_them(name, step):
    click = tag("KeyPoint", "Door", name, smart="true")
    assert read_label_config(config(click + tag("Brush", "Door"))).step_of(name, "image") == step
    controls = read_label_config(config(click + tag("Brush", "Door", name)))
    assert controls.step_of(name, "image") == 0
    assert problems(controls) == []
    assert bool(problems(read_label_config(config(click + tag("Brush", "Door"))))) == (step == 0)


def test_a_control_for_two_images_is_one_for_each():
    controls = read_label_config(
        config(tag("KeyPoint", "Door", to="image,second") + tag("Brush", "Door", to="image,second"))
    )
    assert [control.to_name for control in controls.masks] == ["image", "second"]


def test_configs_that_were_read_do_not_stay_in_memory_as_text():
    read_label_config(config(CLICKS))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(8):
            read_label_config(config(CLICKS) + f"<!-- {number} {'x' * 900_000} -->")
        assert tracemalloc.get_traced_memory()[0] - before < 900_000
    finally:
        tracemalloc.stop()


def test_a_config_is_parsed_once():
    xml = config(CLICKS + tag("Brush", "Door"))
    assert read_label_config(xml) is read_label_config(xml)
    assert read_label_config(xml, {"image": "/a.png", "other": "/b.png"}) is read_label_config(xml)


FROM_TASK = '<{kind}Labels name="{kind}" toName="image" smart="{smart}" value="$classes"/>'
TASK_CLICKS = FROM_TASK.format(kind="KeyPoint", smart="true")
TASK_BRUSH = FROM_TASK.format(kind="Brush", smart="false")


def test_labels_of_the_task_come_after_those_of_the_config():
    xml = config(TASK_CLICKS + TASK_BRUSH.replace("/>", '><Label value="Door"/></BrushLabels>'))
    classes = [
        {"value": "Wheel"},
        {"value": "Long name", "alias": "hood"},
        "text",
        {"other": 1},
        {"value": 3},
    ]
    read = read_label_config(xml, {"classes": classes})
    assert read.region_labels == {"Door", "Wheel", "hood"}
    assert read.all_region_labels == read.region_labels
    without_task = read_label_config(xml)
    assert without_task.region_labels == {"Door"}
    assert without_task.all_region_labels is None
    assert label_order(xml) == ["Door"]
    assert problems(without_task) == []


@pytest.mark.parametrize("classes", [None, "text", {"value": "Wheel"}, []])
def test_a_task_without_labels_has_those_of_the_config(classes):
    assert read_label_config(config(TASK_BRUSH), {"classes": classes}).region_labels == set()


def test_labels_of_the_task_that_only_the_clicks_have_are_named():
    (problem,) = problems(read_label_config(config(TASK_CLICKS + tag("Brush", "Door"))))
    assert "'KeyPoint'" in problem
    assert "`value`" in problem


PAGES = """<View><Image name="page" valueList="$photos"/>{controls}</View>"""


def test_every_page_of_an_image_tag_has_its_controls():
    xml = PAGES.format(controls=tag("KeyPoint", "Door", to="page") + tag("Brush", "Door", to="page"))
    data = {"photos": ["/0.png", "/1.png", "/2.png"]}
    read = read_label_config(xml, data)
    assert [control.to_name for control in read.masks] == ["page", "page[1]", "page[2]"]
    assert [control.image_address(data) for control in read.clicks] == data["photos"]
    assert {control.image_tag for control in read.clicks} == {"page"}
    assert [control.page for control in read.masks] == [0, 1, 2]
    only = read_label_config(xml, {"photos": "/one.png"})
    assert [(c.to_name, c.page, c.image_address({"photos": "/one.png"})) for c in only.masks] == [
        ("page", 0, "/one.png")
    ]


def test_a_value_that_is_a_list_gives_pages_too():
    read = read_label_config(config(tag("Brush", "Door")), {"image": ["/0.png", "/1.png"], "other": "/b.png"})
    assert [control.to_name for control in read.masks] == ["image", "image[1]"]


def test_a_task_with_far_too_many_pages_is_refused():
    with pytest.raises(LabelConfigError, match="pages"):
        read_label_config(config(tag("Brush", "Door")), {"image": ["/0.png"] * 1_000_000})


def test_pages_with_far_too_many_controls_are_refused():
    xml = config("".join(tag("Brush", "Door", name=f"b{n}") for n in range(30)))
    with pytest.raises(LabelConfigError, match="controls"):
        read_label_config(xml, {"image": ["/0.png"] * 9_999})


def test_choices_for_the_whole_task_mark_no_reference():
    whole = config(CLICKS + tag("Brush", "Door")).replace(' perRegion="true"', "")
    (problem,) = problems(read_label_config(whole))
    assert "per-region Choices" in problem


def test_problems_of_a_repeater_are_named_as_the_config_has_them():
    controls = tag("KeyPoint", "Door", name="click_{{idx}}", to="page_{{idx}}", smart="true")
    page = '<Image name="page_{{idx}}" value="$photos[{{idx}}]"/>'
    problem = problems(read_label_config(f'<View><Repeater on="$photos">{page}{controls}</Repeater></View>'))
    assert len(problem) == 2
    brush = tag("Brush", "Hood", name="brush_{{idx}}", to="page_{{idx}}")
    (problem, _) = problems(
        read_label_config(f'<View><Repeater on="$photos">{page}{controls}{brush}</Repeater></View>')
    )
    assert "'click_{{idx}}'" in problem
    assert "'page_{{idx}}'" in problem


def test_a_config_that_is_too_long_is_named():
    with pytest.raises(LabelConfigError, match="longer than"):
        read_label_config(config(CLICKS) + " " * MAX_CONFIG_CHARS)

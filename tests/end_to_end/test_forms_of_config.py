"""A task with several pages and labels of its own, in the real editor."""

from __future__ import annotations

from contextlib import closing

import httpx
import numpy as np

from refcut_backend.cli.demo import demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.playground.demo import PHOTOGRAPHS
from tests.end_to_end.click_on import click_in_the_middle, mask_of
from tests.end_to_end.world import World

PAGES = ("car_parts_te20", "car_parts_te66")
CONFIG = """<View>
  <Image name="image" valueList="$car.photos"/>
  <BrushLabels name="brush" toName="image" smart="false" value="$classes"><Label>Roof</Label></BrushLabels>
  <KeyPointLabels name="click" toName="image" smart="true" smartOnly="true" value="$classes"><Label>Roof</Label>
  </KeyPointLabels>
  <Choices name="refcut_role" toName="image" perRegion="true" choice="single-radio" whenTagName="brush">
    <Choice value="Reference"/><Choice value="Negative reference"/>
  </Choices>
</View>"""
TURN_TO_THE_SECOND = "() => Htx.annotationStore.selected.names.get('image').setCurrentImage(1)"
SECOND_IS_SHOWN = """() => {
    const image = Htx.annotationStore.selected.names.get('image');
    return image.currentImage === 1 && image.imageIsLoaded;
}"""


def test_a_click_on_the_second_page_with_a_label_of_the_task_gives_a_mask_there(world: World) -> None:
    with closing(LabelStudioProject.create(world.label_studio, "Pages", CONFIG, world.token)) as project:
        photos = [
            project.task(task)["data"]["image"]
            for task in project.upload_images([PHOTOGRAPHS / f"{name}.jpg" for name in PAGES])
        ]
        project.connect_backend(world.backend)
        data = {"car": {"photos": photos}, "classes": [{"value": "Wheel"}, {"value": "Door"}]}
        with httpx.Client(
            base_url=world.label_studio, headers={"Authorization": f"Token {world.token}"}
        ) as http:
            answer = http.post("/api/tasks/", json={"project": project.id, "data": data}, timeout=60)
            task_id = answer.raise_for_status().json()["id"]
    editor = world.editor
    editor.open_task(project.id, task_id)
    editor.enable_auto_annotation()
    editor.page.evaluate(TURN_TO_THE_SECOND)
    editor.page.wait_for_function(SECOND_IS_SHOWN)
    editor.choose_label("Wheel")
    wheel_hw = demo_mask("car_parts_te66", "wheel")
    (region,) = click_in_the_middle(editor, wheel_hw)
    assert (region["item_index"], region["value"]["brushlabels"]) == (1, ["Wheel"])
    mask_hw = mask_of(region)
    assert (mask_hw & wheel_hw).sum() > 0.5 * mask_hw.sum(), "the wheel of the second page"
    editor.accept_suggestion()
    (stored,) = [item for item in editor.submit()["result"] if item["type"] == "brushlabels"]
    assert stored["item_index"] == 1
    assert np.array_equal(mask_of(stored), mask_hw)
    editor.leave()

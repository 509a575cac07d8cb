"""The idea of it, in a real Label Studio with a real browser: another reference gives the same click another meaning."""

from __future__ import annotations

from contextlib import closing

from model.masks import intersection_over_union
from refcut_backend.cli.demo import demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.label_studio.regions import BrushRegion
from refcut_backend.playground.demo import PHOTOGRAPHS
from tests.end_to_end.click_on import click_in_the_middle, mask_of
from tests.end_to_end.world import World
from tests.support.demo_regions import CAR, demo_region, other_regions
from tests.support.recorded import LABEL_CONFIG

TARGET, REFERENCE = "car_parts_te66", "car_parts_car118"


def test_a_click_on_a_wheel_gives_the_car_where_the_reference_means_the_car(world: World) -> None:
    others = [BrushRegion(name, "Door", mask_hw) for name, mask_hw in other_regions(REFERENCE, CAR).items()]
    meant = BrushRegion(CAR, "Wheel", demo_region(REFERENCE, CAR), "Reference")
    with closing(
        LabelStudioProject.create(world.label_studio, "Wheel means car", LABEL_CONFIG, world.token)
    ) as project:
        reference, target = project.upload_images(
            [PHOTOGRAPHS / f"{name}.jpg" for name in (REFERENCE, TARGET)]
        )
        project.connect_backend(world.backend)
        project.annotate(reference, [meant, *others])
    world.editor.open_task(project.id, target)
    world.editor.enable_auto_annotation()
    world.editor.choose_label("Wheel")
    (region,) = click_in_the_middle(world.editor, demo_mask(TARGET, "wheel"))
    assert intersection_over_union(demo_region(TARGET, CAR), mask_of(region)) > 0.65

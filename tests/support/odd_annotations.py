"""Results of annotations that Label Studio stores when its API is given them, and that its editor never makes."""

from __future__ import annotations

from typing import Any

from tests.support.registry import DOOR, marked

HUGE = 10**400
RECTANGLE = {
    "id": "r",
    "type": "rectanglelabels",
    "from_name": "rectangle",
    "to_name": "image",
    "original_width": 60,
    "original_height": 20,
    "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["Door"]},
}
ODD_ITEMS: dict[str, list[Any]] = {
    "type is a list": [DOOR | {"type": ["x"]}, marked(DOOR)],
    "from_name is a list": [DOOR, marked(DOOR) | {"from_name": ["x"]}],
    "to_name is an object": [DOOR | {"to_name": {"x": 1}}, marked(DOOR)],
    "value is text": [DOOR | {"value": "x"}, marked(DOOR)],
    "an item is text": [DOOR, marked(DOOR), "x"],
    "an item is null": [DOOR, marked(DOOR), None],
    "an item is a list": [DOOR, marked(DOOR), [DOOR]],
}
ODD_REGIONS: dict[str, list[Any]] = {
    "a rectangle of 400 digits": [RECTANGLE | {"value": RECTANGLE["value"] | {"x": HUGE}}],
    "a rotation of 400 digits": [RECTANGLE | {"value": RECTANGLE["value"] | {"rotation": HUGE}}],
    "an image of 400 digits": [DOOR | {"original_width": HUGE}],
    "an image that is text": [DOOR | {"original_width": "wide"}],
    "a polygon of 400 digits": [
        RECTANGLE
        | {
            "type": "polygonlabels",
            "value": {"points": [[HUGE, 1], [2, 2], [3, 1]], "polygonlabels": ["Door"]},
        }
    ],
    "a mask that is text": [DOOR | {"value": DOOR["value"] | {"rle": "x"}}],
    "a mask of objects": [DOOR | {"value": DOOR["value"] | {"rle": [{"x": 1}]}}],
    "labels that are text": [DOOR | {"value": DOOR["value"] | {"brushlabels": "Door"}}],
}

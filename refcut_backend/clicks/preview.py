"""Small pictures of the masks that clicks were answered with, for the pages: the mask, and its clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select

from refcut_backend.clicks.recent_objects import box_from_json, clicks_from_json, given_mask
from refcut_backend.database.click_tables import ClickedObjectState as State
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

LONGEST_SIDE_PX = 480
MOST_PIXELS = 30_000_000
"""A larger mask has no preview: decoding it would take the web process too long."""


@dataclass(frozen=True)
class MaskPreview:
    """An answered object in a small size.

    Attributes:
        mask_hw: Its mask (H, W), at most `LONGEST_SIDE_PX` high and wide.
        clicks: Its clicks, in percent of the image.
        box: Its box, in percent of the image, if it began with one.
    """

    mask_hw: NDArray[np.bool_]
    clicks: tuple[PercentClick, ...]
    box: PercentBox | None


class MaskPreviews:
    """Makes previews.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, project_id: int, task_id: int, region_id: str) -> MaskPreview | None:
        """Return the preview of a region's latest mask; None if the mask is gone, as after a submit, or too large.

        Raises:
            BadMaskError: If the stored mask is damaged.
        """
        query = select(
            State.width,
            State.height,
            State.rle,
            State.score,
            State.reference_versions,
            State.clicks,
            State.box,
        ).where(State.project_id == project_id, State.task_id == task_id, State.region_id == region_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        given = given_mask(row)
        if row is None or given is None or given.width * given.height > MOST_PIXELS:
            return None
        mask_hw = brush_rle.decode(given.rle, given.height, given.width)
        step = -(-max(given.width, given.height) // LONGEST_SIDE_PX)
        return MaskPreview(mask_hw[::step, ::step], clicks_from_json(row.clicks), box_from_json(row.box))

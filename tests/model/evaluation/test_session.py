from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluation.robot_annotator import RobotClicker, Session, annotate, removed_share
from model.masks import union
from model.predictor import MaskResult
from model.transforms import Roi
from model.types import Click
from tests.support.colour_world import ColourPredictor, make_scene


def session_of(folder: Path, parts: Sequence[str], *, max_clicks: int = 20, min_clicks: int = 1) -> Session:
    scene = make_scene(folder / "a.png", ["wheel", "door", "roof", "mirror"])
    predictor = ColourPredictor()
    predictor.set_image(scene.image())
    target_hw = union(scene.masks()[name] for name in parts)
    return annotate(
        predictor, target_hw, RobotClicker(target_hw), max_clicks=max_clicks, min_clicks=min_clicks
    )


def test_the_robot_stops_when_the_mask_is_good(tmp_path: Path) -> None:
    session = session_of(tmp_path, ["wheel", "door", "mirror"])
    assert len(session.clicks) == len(session.ious) == len(session.seconds) == 3
    assert session.ious[-1] == 1
    assert session.ious == sorted(session.ious)


def test_the_robot_goes_on_for_the_fewest_clicks_and_gives_up_after_the_most(tmp_path: Path) -> None:
    assert len(session_of(tmp_path, ["wheel"], min_clicks=3).clicks) == 3
    assert len(session_of(tmp_path, ["wheel", "door", "mirror"], max_clicks=2).clicks) == 2


def test_the_first_mask_is_kept(tmp_path: Path) -> None:
    session = session_of(tmp_path, ["wheel", "door", "mirror"])
    assert session.first_mask_hw.sum() == 100


class Stubborn(ColourPredictor):
    """Answers with the whole picture at first, then with its left half."""

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        mask_hw: NDArray[np.bool_] = np.ones((40, 40), bool)
        if len(clicks) > 1:
            mask_hw[:, 20:] = False
        return MaskResult(mask_hw, mask_hw.astype(np.float32), Roi.whole(40, 40))


def test_what_a_negative_click_took_away_is_noted() -> None:
    target_hw = np.zeros((40, 40), bool)
    target_hw[:, :10] = True
    session = annotate(Stubborn(), target_hw, RobotClicker(target_hw), max_clicks=2, min_clicks=1)
    assert [click.positive for click in session.clicks] == [True, False]
    assert session.removed == [pytest.approx(2 / 3)]


def test_a_negative_click_on_a_clean_mask_counts_by_its_own_pixel() -> None:
    clean_hw, after_hw = np.zeros((2, 5, 5), bool)
    after_hw[0, 0] = True
    assert removed_share(Click(2, 2, False), clean_hw, after_hw) == 1
    assert removed_share(Click(0, 0, False), clean_hw, after_hw) == 0

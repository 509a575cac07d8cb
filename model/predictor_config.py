"""How the network is used: the settings of the predictor, and the values that the backend serves with."""

from __future__ import annotations

from dataclasses import dataclass

from model.network.config import NetworkConfig
from model.transforms import EXPANSION, MIN_CROP_PX, Resampling
from model.types import Box


@dataclass(frozen=True)
class PredictorSettings:
    """How the network is used.

    The defaults are SimpleClick's evaluation; `SERVING` is what the backend serves.

    Attributes:
        network_px: Side of the square input of the network, in pixels; a multiple of its patch.
        zoom: Whether the network sees a crop around the last mask, from the second click on.
        second_look: Whether the first click is computed again on a crop around its mask.
        second_look_share: Only for a first mask whose box is smaller than this share of the crop, in height and in width.
            1 looks twice at every mask that does not fill the image. A network that expects an IoU answers with the mean
            of both looks (`model.candidate_masks.mean_of_looks`), another one with the second.
        second_look_expansion: Size of that crop, relative to the mask's box.
        expected_crops: Whether that crop may be one in which the reference lets the label be expected, so that it can be
            encoded before the first click (`model.expected_crops`).
        flip: Whether the result is averaged with that of the mirrored image.
        threshold: A pixel with a larger probability belongs to the mask.
        resampling: "aligned" is SimpleClick's resize of the pixels. "area" averages when shrinking, as `s14` is
            trained.
        reference_zoom: Whether a reference is read from a crop around its masks instead of the whole image.
        close_ups: Whether a reference is read a second time, from a crop around its positive mask, and crops of an image
            are compared with that: a part looks different from nearby. Only for crops of less than `CLOSE_SHARE` of
            their image. It makes encoding a reference twice as slow, and no click.
        bfloat16: Whether the network is computed in bfloat16 where that is safe (autocast).
        zoom_threshold: A pixel with a larger probability belongs to the mask that a crop is placed around.
        zoom_min_px: Smallest side of a crop, in image pixels.
        zoom_skip_clicks: Number of first clicks that see the whole image; the next click then chooses a crop
            (SimpleClick's demo: 1). -1: the whole image counts as the first crop and is kept unless the new crop
            differs much. SimpleClick's 0 (the first click is computed twice) is `second_look`.

    Raises:
        ValueError: If `zoom_skip_clicks` is 0.

    Example:
        >>> from model import PredictorSettings
        >>> PredictorSettings(network_px=336, second_look=True).flip
        False
    """

    network_px: int = 448
    zoom: bool = True
    second_look: bool = False
    second_look_share: float = 1.0
    second_look_expansion: float = EXPANSION
    expected_crops: bool = False
    flip: bool = False
    threshold: float = 0.49
    resampling: Resampling = "aligned"
    reference_zoom: bool = False
    close_ups: bool = False
    bfloat16: bool = False
    zoom_threshold: float = 0.5
    zoom_min_px: int = MIN_CROP_PX
    zoom_skip_clicks: int = -1

    def __post_init__(self) -> None:
        if self.zoom_skip_clicks == 0:
            raise ValueError(
                "zoom_skip_clicks is -1 or at least 1; second_look looks twice at the first click"
            )


CLOSE_SHARE = 0.5
"""A crop of less than this share of its image shows it from nearby (`PredictorSettings.close_ups`)."""


def is_close(crop: Box, height: int, width: int) -> bool:
    """Whether a crop shows an image of this height and width from nearby."""
    return crop.height * crop.width < CLOSE_SHARE * height * width


SERVING = PredictorSettings(
    network_px=336,
    second_look=True,
    second_look_share=0.7,
    expected_crops=True,
    resampling="area",
    close_ups=True,
)


def serving_settings(config: NetworkConfig) -> PredictorSettings:
    """Settings that the backend uses for a network.

    Args:
        config: Shape of the network. One with frozen reference features gets `SERVING`, one in SimpleClick's shape gets
            SimpleClick's evaluation at its own size.
    """
    return (
        SERVING if config.reference_features == "frozen" else PredictorSettings(network_px=config.network_px)
    )

"""How the network is used: the switches of the predictor, and what the backend sets them to."""

from __future__ import annotations

from dataclasses import dataclass

from model.network.config import NetworkConfig
from model.transforms import EXPANSION, MIN_CROP_PX, Resampling


@dataclass(frozen=True)
class PredictorSettings:
    """How the network is used. The defaults are SimpleClick's evaluation; `SERVING` is what the backend serves.

    network_px: side of the square that the network sees.
    zoom: look at the surroundings of the last mask from the second click on.
    zoom_threshold: a pixel above it belongs to that mask.
    zoom_min_px: the surroundings are at least so large.
    zoom_skip_clicks: so many clicks at the start see the whole image, and the surroundings are chosen afresh at the
        next one (SimpleClick's demo: 1). -1: the whole image counts as the first choice, to be kept unless the
        surroundings differ much. SimpleClick's 0 (look twice at the first click) is `second_look`.
    second_look: look again, zoomed in, after the first click.
    second_look_expansion: how much larger than the first mask the second look is.
    flip: average with the mirrored image.
    resampling: "aligned" is SimpleClick's resize of the pixels, "area" averages when shrinking, as s14 is
        trained.
    reference_zoom: read a reference from the surroundings of its masks instead of the whole photograph.
    """

    network_px: int = 448
    zoom: bool = True
    second_look: bool = False
    second_look_expansion: float = EXPANSION
    flip: bool = False
    threshold: float = 0.49
    resampling: Resampling = "aligned"
    reference_zoom: bool = False
    bfloat16: bool = False
    zoom_threshold: float = 0.5
    zoom_min_px: int = MIN_CROP_PX
    zoom_skip_clicks: int = -1

    def __post_init__(self) -> None:
        if self.zoom_skip_clicks == 0:
            raise ValueError(
                "zoom_skip_clicks is -1 or at least 1; second_look looks twice at the first click"
            )


SERVING = PredictorSettings(network_px=336, second_look=True, resampling="area")


def serving_settings(config: NetworkConfig) -> PredictorSettings:
    """How the backend uses a network: `SERVING` for one of ours, SimpleClick's evaluation for one of its shape."""
    return (
        SERVING if config.reference_features == "frozen" else PredictorSettings(network_px=config.network_px)
    )

"""Cut an object out of one picture with clicks and references.

Clicks are applied one after another, each with the mask before it, as an annotator would. A reference is another picture
on which the same thing is marked; --positive and --negative belong to the --reference before them.

    python -m model segment photo.jpg --click 314,273 --mask out.png
    python -m model segment photo.jpg --reference other.jpg --positive mask.png --mask out.png
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoints.weights import load_network
from model.cli.common import OneLineParser, add_weights, command_parser
from model.errors import DataError, ModelError
from model.images import read_image, read_mask
from model.network.config import NetworkConfig
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.predictor_config import PredictorSettings, serving_settings
from model.types import Click, MaskResult

GREEN, RED, BLUE = (40, 200, 60), (230, 50, 40), (50, 110, 240)
TINT = 0.5


def draw_overlay(
    image_rgb: NDArray[np.uint8], mask_hw: NDArray[np.bool_], clicks: Sequence[Click]
) -> NDArray[np.uint8]:
    """Draw a mask and clicks on an image.

    Args:
        image_rgb: RGB image (H, W, 3), uint8.
        mask_hw: Mask, bool (H, W); drawn blue with a white outline.
        clicks: Clicks in image pixels; positive ones are drawn green, negative ones red.

    Returns:
        A new image (H, W, 3), uint8.
    """
    tinted = image_rgb.astype(np.float32)
    tinted[mask_hw] = (1 - TINT) * tinted[mask_hw] + TINT * np.array(BLUE, np.float32)
    out = tinted.round().astype(np.uint8)
    outlines, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, (255, 255, 255), 1)
    radius = max(3, round(max(out.shape[:2]) / 80))
    for click in clicks:
        position = round(click.col), round(click.row)
        cv2.circle(out, position, radius + 2, (255, 255, 255), -1)
        cv2.circle(out, position, radius, GREEN if click.positive else RED, -1)
    return out


Zoom = Literal["simpleclick", "none"]
_NUMBER = r"\s*(-?\d+(?:\.\d*)?)\s*"
_CLICK = re.compile(rf"{_NUMBER},{_NUMBER}(?:,\s*([+-])\s*)?")


@dataclass(frozen=True)
class ReferenceFiles:
    """Files of one reference.

    Attributes:
        image: The reference's picture.
        positive: Mask of what is meant; None if there is none. At least one mask is needed.
        negative: Mask of what is not meant; None if there is none.
    """

    image: Path
    positive: Path | None = None
    negative: Path | None = None


def segment(arguments: argparse.Namespace) -> MaskResult:
    """Read the files, segment, and write the results.

    Args:
        arguments: Of `make_parser`.

    Raises:
        ModelError: If a file cannot be used, or a click lies outside the image.
    """
    image = read_image(arguments.image)
    check_clicks(arguments.click, image)
    references = [_read_reference(files) for files in arguments.references]
    network = load_network(arguments.weights)
    if references and not (network.config.similarity or network.rpg.trained):
        print(
            "note: these weights do not use references; the result depends on the clicks alone",
            file=sys.stderr,
        )
    predictor = RefCutPredictor(network, settings_of(network.config, arguments.zoom, arguments.flip))
    if references:
        predictor.set_reference(ReferenceTokens.join([predictor.encode_reference(*r) for r in references]))
    predictor.set_image(image)
    result = predictor.predict(arguments.click)
    _write(arguments, image, result)
    return result


def settings_of(config: NetworkConfig, zoom: Zoom | None, flip: bool) -> PredictorSettings:
    """Settings that the backend serves, with the changes of the command line.

    Args:
        config: Shape of the network.
        zoom: "simpleclick" uses a crop from the second click on, "none" never does; None is what is served.
        flip: Whether to average with the mirrored picture.
    """
    served = serving_settings(config)
    if zoom is not None:
        served = dataclasses.replace(served, zoom=zoom == "simpleclick", second_look=False)
    return dataclasses.replace(served, flip=flip or served.flip)


def parse_click(text: str) -> Click:
    """Read a click: `X,Y` or `X,Y,+` adds the part at column X, row Y; `X,Y,-` removes it.

    Raises:
        ArgumentTypeError: If the text is not a click.
    """
    found = _CLICK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a click: write X,Y or X,Y,- in pixels of the image"
        )
    return Click(row=float(found[2]), col=float(found[1]), positive=found[3] != "-")


def check_clicks(clicks: Sequence[Click], image: NDArray[np.uint8]) -> None:
    """Check that clicks lie on an image.

    Args:
        clicks: Clicks in image pixels.
        image: (H, W, 3).

    Raises:
        DataError: If a click lies outside.
    """
    height, width = image.shape[:2]
    for click in clicks:
        if not (0 <= click.row < height and 0 <= click.col < width):
            raise DataError(
                f"the click {click.col:g},{click.row:g} lies outside the image of {width} x {height} px",
                hint="X runs from 0 at the left, Y from 0 at the top, in pixels of the picture as it is shown",
            )


def _read_reference(
    files: ReferenceFiles,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    image = read_image(files.image)
    size = (image.shape[0], image.shape[1])
    positive, negative = (
        None if path is None else read_mask(path, size) for path in (files.positive, files.negative)
    )
    if not any(mask is not None and mask.any() for mask in (positive, negative)):
        raise DataError(
            f"nothing is marked on the reference {files.image}", hint="its masks are entirely black"
        )
    return image, positive, negative


def _write(arguments: argparse.Namespace, image: NDArray[np.uint8], result: MaskResult) -> None:
    try:
        Image.fromarray(result.mask_hw.astype(np.uint8) * 255).save(arguments.mask, format="PNG")
        if arguments.probability:
            with arguments.probability.open("wb") as file:
                np.save(file, result.probability_hw)
        if arguments.overlay:
            Image.fromarray(draw_overlay(image, result.mask_hw, arguments.click)).save(arguments.overlay)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the result cannot be written ({error})", hint="check the folder and the ending"
        ) from error


class _Reference(argparse.Action):
    """Collects `--reference R --positive P --negative N` in order: masks belong to the reference before them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        references: list[ReferenceFiles] = list(namespace.references)
        if option == "--reference":
            references.append(ReferenceFiles(values))
        else:
            field = str(option).removeprefix("--")
            if not references or getattr(references[-1], field) is not None:
                parser.error(f"{option} {values} needs a --reference of its own before it")
            references[-1] = dataclasses.replace(references[-1], **{field: values})
        namespace.references = references


def make_parser() -> OneLineParser:
    """The parser of this command."""
    parser = command_parser("segment", __doc__, allow_abbrev=False)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the picture to segment")
    parser.add_argument(
        "--click",
        type=parse_click,
        action="append",
        default=[],
        metavar="X,Y[,-]",
        help="a click at column X, row Y; with ,- it removes this part; repeatable",
    )
    for option, text in (
        ("--reference", "another picture on which the same thing is marked; repeatable"),
        ("--positive", "mask of the object on that picture: every pixel that is not black"),
        ("--negative", "mask of what does not belong to the object"),
    ):
        parser.add_argument(
            option, type=Path, action=_Reference, dest="references", default=[], metavar="FILE", help=text
        )
    add_weights(parser)
    parser.add_argument(
        "--zoom",
        choices=("simpleclick", "none"),
        help="zoom in from the second click on, or never (default: as served)",
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored picture")
    parser.add_argument("--mask", type=Path, required=True, help="output: PNG, 255 inside the mask")
    parser.add_argument("--probability", type=Path, help="output: probabilities, float32 (H, W) as .npy")
    parser.add_argument("--overlay", type=Path, help="output: the mask drawn on the picture")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if not arguments.click and not arguments.references:
        parser.error("give at least one --click or --reference")
    for files in arguments.references:
        if files.positive is None and files.negative is None:
            parser.error(f"--reference {files.image} needs --positive or --negative after it")
    try:
        result = segment(arguments)
    except ModelError as error:
        parser.error(str(error))
    share = 100 * float(result.mask_hw.mean())
    print(f"{arguments.mask}: {np.count_nonzero(result.mask_hw)} px, {share:.1f} % of the picture")

"""The command line: one picture in, one mask out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.checkpoints.official import convert
from model.checkpoints.weights import save_network
from model.cli.segment import main, parse_click, settings_of
from model.network.config import PRESETS
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings
from model.types import Click
from tests.support.recordings import CHECKPOINT, read_run
from tests.support.synthetic import TINY_SIMPLECLICK, drawn_image, random_network

NETWORK = random_network(TINY_SIMPLECLICK)
IMAGE = drawn_image(50, 80)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture, two references with masks, and weights with trained prompts."""
    save_network(NETWORK.state_dict(), NETWORK.config, tmp_path / "tiny.safetensors")
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    for number in (1, 2):
        Image.fromarray(drawn_image(40, 60, number)).save(tmp_path / f"ref{number}.png")
    for name, left in (("p1", 5), ("n1", 30), ("p2", 20)):
        Image.fromarray(marked(left).astype(np.uint8)).save(tmp_path / f"{name}.png")
    Image.new("L", (60, 40)).save(tmp_path / "black.png")
    return tmp_path


def marked(left: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 60), bool)
    mask[10:30, left : left + 20] = True
    return mask


def picture_in(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.array(picture)


def run(folder: Path, *arguments: str, image: str = "image.png", weights: str = "tiny.safetensors") -> None:
    """Runs the command on files of `folder`; values that are names of such files are made paths."""
    paths = [str(folder / a) if a.endswith((".png", ".npy", ".jpg")) else a for a in arguments]
    main(
        [str(folder / image), "--weights", str(folder / weights), "--mask", str(folder / "mask.png"), *paths]
    )


def probability(folder: Path, *arguments: str, **files: str) -> NDArray[np.float32]:
    run(folder, "--probability", "p.npy", *arguments, **files)
    values: NDArray[np.float32] = np.load(folder / "p.npy")
    return values


def recorded_clicks(name: str) -> list[str]:
    signs = {True: "", False: ",-"}
    return [
        part for c in read_run(name).clicks for part in ("--click", f"{c.col:g},{c.row:g}{signs[c.positive]}")
    ]


@pytest.mark.parametrize(
    ("name", "zoom"),
    [
        ("micro_zoom448_noflip", ["--zoom", "simpleclick"]),
        ("micro_zoom448_flip", ["--zoom", "simpleclick", "--flip"]),
        ("micro_plain_flip", ["--zoom", "none", "--flip"]),
        ("micro_zoom448_noflip", []),
    ],
)
def test_it_answers_as_simpleclick_answered(tmp_path: Path, name: str, zoom: list[str]) -> None:
    convert(CHECKPOINT, tmp_path / "micro.safetensors")
    recorded = read_run(name)
    outputs = ["--mask", str(tmp_path / "m.png"), "--probability", str(tmp_path / "p.npy")]
    weights = ["--weights", str(tmp_path / "micro.safetensors")]
    main([str(recorded.image_path), *recorded_clicks(name), *zoom, *outputs, *weights])
    values, mask = np.load(tmp_path / "p.npy"), picture_in(tmp_path / "m.png")
    assert values.dtype == np.float32
    assert np.abs(values[::2, ::2] - recorded.probabilities_nhw_half[-1]).max() < 1e-3
    assert np.count_nonzero((mask > 0) != recorded.masks_nhw[-1]) <= 3
    assert set(np.unique(mask)) <= {0, 255}


def test_references_belong_to_the_masks_that_follow_them(folder: Path) -> None:
    predictor = RefCutPredictor(NETWORK, settings_of(NETWORK.config, None, False))
    first = predictor.encode_reference(drawn_image(40, 60, 1), marked(5), marked(30))
    second = predictor.encode_reference(drawn_image(40, 60, 2), marked(20), None)
    predictor.set_image(IMAGE)
    predictor.set_reference(first.join([first, second]))
    expected = predictor.predict([Click(20, 30)]).probability_hw
    one = ["--reference", "ref1.png", "--negative", "n1.png", "--positive", "p1.png"]
    two = ["--reference", "ref2.png", "--positive", "p2.png"]
    assert np.array_equal(probability(folder, "--click", "30,20", *one, *two), expected)
    assert not np.allclose(probability(folder, "--click", "30,20", *one), expected, atol=1e-5)


def test_a_reference_alone_is_enough(folder: Path) -> None:
    values = probability(folder, "--reference", "ref1.png", "--positive", "p1.png")
    assert values.shape == IMAGE.shape[:2]


def test_weights_without_trained_prompts_say_that_references_do_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {name: t for name, t in NETWORK.state_dict().items() if not name.startswith("rpg.")}
    save_network(tensors, NETWORK.config, folder / "plain.safetensors")
    plain = probability(folder, "--click", "30,20", weights="plain.safetensors")
    assert not capsys.readouterr().err
    reference = ["--reference", "ref1.png", "--positive", "p1.png"]
    named = probability(folder, "--click", "30,20", *reference, weights="plain.safetensors")
    assert np.array_equal(plain, named)
    assert "do not use references" in capsys.readouterr().err


def test_clicks_and_masks_are_in_the_frame_of_the_turned_picture(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(IMAGE))).save(folder / "turned.png", exif=exif)
    upright = probability(folder, "--click", "75,20")
    assert np.array_equal(probability(folder, "--click", "75,20", image="turned.png"), upright)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_every_kind_of_picture_has_a_mask_of_its_size(folder: Path, mode: str) -> None:
    picture = Image.fromarray(IMAGE)
    wide = Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 257)
    (wide if mode == "I;16" else picture.convert(mode)).save(folder / "kind.tiff")
    run(folder, "--click", "30,20", image="kind.tiff")
    assert picture_in(folder / "mask.png").shape == (50, 80)


def test_the_overlay_shows_the_picture_with_its_clicks(folder: Path) -> None:
    run(folder, "--click", "30,20", "--click", "60,40,-", "--overlay", "overlay.png")
    overlay = picture_in(folder / "overlay.png")
    assert overlay.shape == IMAGE.shape
    assert overlay[20, 30, 1] > overlay[20, 30, 0]
    assert overlay[40, 60, 0] > overlay[40, 60, 1]


@pytest.mark.parametrize(
    ("text", "click"),
    [
        ("3,4", Click(4, 3)),
        ("3,4,-", Click(4, 3, False)),
        ("3.5, 4 ,+", Click(4, 3.5)),
    ],
)
def test_clicks_are_column_then_row(text: str, click: Click) -> None:
    assert parse_click(text) == click


def test_defaults_are_what_is_served() -> None:
    ours, simpleclick = PRESETS["s14"], PRESETS["vit_b16"]
    assert settings_of(ours, None, False) == SERVING
    assert settings_of(simpleclick, None, False) == PredictorSettings()
    zoomed = settings_of(ours, "simpleclick", True)
    assert (zoomed.zoom, zoomed.second_look, zoomed.flip) == (True, False, True)
    assert (settings_of(ours, "none", False).zoom, settings_of(ours, "none", False).second_look) == (
        False,
        False,
    )


BAD = {
    "no click": ([], "at least one --click or --reference"),
    "no comma": (["--click", "30"], "is not a click"),
    "no number": (["--click", "nan,3"], "is not a click"),
    "another sign": (["--click", "3,3,*"], "is not a click"),
    "right of the picture": (["--click", "80,20"], "lies outside the image of 80 x 50 px"),
    "below the picture": (["--click", "30,50"], "lies outside"),
    "left of the picture": (["--click=-1,5"], "lies outside"),
    "mask before reference": (["--positive", "p1.png", "--reference", "ref1.png"], "needs a --reference"),
    "mask twice": (
        ["--reference", "ref1.png", "--positive", "p1.png", "--positive", "p2.png"],
        "needs a --ref",
    ),
    "reference without mask": (
        ["--click", "3,3", "--reference", "ref1.png"],
        "needs --positive or --negative",
    ),
    "mask of another size": (["--reference", "image.png", "--positive", "p1.png"], "its image 80 x 50"),
    "black mask": (["--reference", "ref1.png", "--positive", "black.png"], "nothing is marked"),
    "missing reference": (["--reference", "no.png", "--positive", "p1.png"], "does not exist"),
    "unknown zoom": (["--click", "3,3", "--zoom", "much"], "invalid choice"),
    "no folder to write to": (["--click", "3,3", "--overlay", "no/such/folder.png"], "cannot be written"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_input_ends_with_one_line_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arguments, message = BAD[kind]
    with pytest.raises(SystemExit) as caught:
        run(folder, *arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("image", "weights"), [("p.npy", "tiny.safetensors"), ("image.png", "no.safetensors")]
)
def test_missing_files_end_with_one_line_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], image: str, weights: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(folder, "--click", "3,3", image=image, weights=weights)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1

"""tests/refcut_backend/label_studio/test_brush_rle.py."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.brush_rle import FIELD_BITS, HEADER_BITS, WIDEST_READ, BitStream, join_codes
from tests.support.recorded import recorded

masks = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))
sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
images = sizes.flatmap(lambda size: arrays(np.uint8, (*size, 4), elements=st.sampled_from([0, 1, 127, 255])))
length_classes = st.lists(st.integers(1, 16), min_size=4, max_size=4)


def stream(
    count: int, length_bits: list[int], codes: list[tuple[int, int]], value_bits: int = 8
) -> list[int]:
    """A brush mask of any runs: (code, width) pairs behind a header."""
    header = list(zip((count, value_bits - 1, *(bits - 1 for bits in length_bits)), FIELD_BITS, strict=True))
    pairs = np.array([*header, *codes], np.int64)
    return join_codes(pairs[:, 0], pairs[:, 1]).tolist()


def run(length_bits: list[int], place: int, values: list[int], repeat: int = 0) -> list[tuple[int, int]]:
    """A literal run of values, or with `repeat` the first value so many times."""
    head = [(1 if repeat else 0, 1), (place, 2), ((repeat or len(values)) - 1, length_bits[place])]
    return head + [(value, 8) for value in (values[:1] if repeat else values)]


def sdk() -> ModuleType:
    """The SDK's converter of brush masks. Imported late, with scipy and pandas: only one test process needs it."""
    return importlib.import_module("label_studio_sdk.converter.brush")


def sdk_alpha(rle: list[int], shape: tuple[int, ...]) -> np.ndarray:
    return sdk().decode_rle(rle).reshape(*shape[:2], 4)[..., 3] > 0


def pixel_by_pixel(rle: list[int], height: int, width: int) -> NDArray[np.bool_]:
    rows_cols = np.ndindex(height, width)
    return np.array([brush_rle.is_set(rle, height, width, *at) for at in rows_cols]).reshape(height, width)


@given(masks)
def test_encoding_and_decoding_give_the_mask_back(mask_hw):
    assert np.array_equal(brush_rle.decode(brush_rle.encode(mask_hw), *mask_hw.shape), mask_hw)


@given(masks)
def test_we_encode_byte_for_byte_as_the_sdk_does(mask_hw):
    theirs = sdk().mask2rle(mask_hw.astype(np.uint8) * 255)
    ours = brush_rle.encode(mask_hw)
    assert theirs[: len(ours)] == ours
    assert theirs[len(ours) :] in ([], [0])


@given(masks)
def test_the_sdk_decodes_what_we_encode(mask_hw):
    decoded = sdk().decode_rle(brush_rle.encode(mask_hw)).reshape(*mask_hw.shape, 4)
    assert np.array_equal(decoded > 0, np.repeat(mask_hw[..., None], 4, axis=2))


@given(images)
def test_we_decode_what_the_sdk_encodes_whatever_the_four_channels_hold(image_hwc):
    rle = sdk().encode_rle(image_hwc.reshape(-1))
    assert np.array_equal(brush_rle.decode(rle, *image_hwc.shape[:2]), image_hwc[..., 3] > 0)


@given(images, length_classes, st.data())
def test_we_decode_literal_runs_and_length_classes_that_the_sdk_never_writes(image_hwc, length_bits, draw):
    codes, left = [], image_hwc.reshape(-1).tolist()
    while left:
        place = draw.draw(st.integers(0, 3))
        most = min(len(left), 1 << length_bits[place])
        same = next((i for i, value in enumerate(left) if value != left[0]), len(left))
        repeat = draw.draw(st.integers(0, min(most, same)))
        taken = repeat or draw.draw(st.integers(1, most))
        codes += run(length_bits, place, left[:taken], repeat)
        left = left[taken:]
    rle = stream(image_hwc.size, length_bits, codes)
    decoded = brush_rle.decode(rle, *image_hwc.shape[:2])
    assert np.array_equal(decoded, image_hwc[..., 3] > 0)
    assert np.array_equal(decoded, sdk_alpha(rle, image_hwc.shape))
    assert np.array_equal(pixel_by_pixel(rle, *decoded.shape), decoded)


@given(masks)
def test_a_single_pixel_is_what_it_is_in_the_whole_mask(mask_hw):
    assert np.array_equal(pixel_by_pixel(brush_rle.encode(mask_hw), *mask_hw.shape), mask_hw)


def test_a_pixel_behind_the_end_of_a_mask_that_was_cut_short_is_an_error():
    rle = brush_rle.encode(np.eye(9, dtype=bool))
    assert brush_rle.is_set(rle[:30], 9, 9, 0, 0)
    with pytest.raises(BadMaskError, match="too early"):
        brush_rle.is_set(rle[:30], 9, 9, 8, 8)
    with pytest.raises(BadMaskError, match="declares"):
        brush_rle.is_set(rle, 9, 10, 0, 0)


def test_a_recorded_mask_is_decoded_as_the_sdk_does():
    (region,) = recorded("predict_interactive_3clicks_full")["response"]["results"][0]["result"]
    rle, size = region["value"]["rle"], (region["original_height"], region["original_width"])
    decoded = brush_rle.decode(rle, *size)
    assert decoded.any()
    assert np.array_equal(decoded, sdk_alpha(rle, size))


@pytest.mark.parametrize("mask_hw", [np.zeros((1, 1), bool), np.ones((1, 1), bool), np.ones((5, 7), bool)])
def test_an_empty_mask_a_full_mask_and_a_single_pixel_survive(mask_hw):
    assert np.array_equal(brush_rle.decode(brush_rle.encode(mask_hw), *mask_hw.shape), mask_hw)


def test_a_run_longer_than_the_widest_length_class_is_split():
    mask_hw = np.zeros((300, 700), bool)
    mask_hw[100:200] = True
    rle = brush_rle.encode(mask_hw)
    assert np.array_equal(brush_rle.decode(rle, 300, 700), mask_hw)
    assert np.array_equal(sdk_alpha(rle, mask_hw.shape), mask_hw)


CHECKERED = brush_rle.encode(np.eye(4, dtype=bool))
PLAIN = run([3, 4, 8, 16], 2, [0], repeat=64)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "cut short"),
        ([0, 0, 0, 64, 57, 39], "cut short"),
        (CHECKERED[:-4], "fewer values|ends too early"),
        (CHECKERED[:-1], "fewer values|ends too early"),
        (brush_rle.encode(np.ones((5, 4), bool)), "declares 80 values"),
        ([255] * 40, "declares 4294967295 values"),
        (stream(64, [3, 4, 8, 16], PLAIN, value_bits=4), "of 4 bits"),
        (stream(64, [3, 4, 8, 16], PLAIN, value_bits=16), "of 16 bits"),
        (stream(64, [3, 4, 8, 16], PLAIN + run([3, 4, 8, 16], 0, [0], repeat=8)), "after its end"),
        (stream(64, [3, 4, 8, 16], run([3, 4, 8, 16], 2, [0], repeat=65)), "fewer values"),
        ([*stream(64, [3, 4, 8, 16], PLAIN), 1], "after its end"),
        ([*stream(64, [3, 4, 8, 16], PLAIN), 0, 0], "after its end"),
        (stream(64, [3, 4, 8, 16], PLAIN) + [0] * 1000, "longer than its image"),
        ([*CHECKERED[:-1], 256], "not a list"),
        ([*CHECKERED[:-1], -1], "not a list"),
        ([*CHECKERED[:-1], 10**30], "not a list"),
        ([*CHECKERED[:-1], 1.0], "not a list"),
        ([*CHECKERED[:-1], float("nan")], "not a list"),
        ([*CHECKERED[:-1], "1"], "not a list"),
        ([*CHECKERED[:-1], None], "not a list"),
        ([CHECKERED], "not a list"),
        ("0,0,0,64", "not a list"),
        ({"0": 1}, "not a list"),
        (64, "not a list"),
        (None, "not a list"),
    ],
)
def test_a_mask_that_is_damaged_or_of_another_size_is_refused(rle, message):
    with pytest.raises(BadMaskError, match=message):
        brush_rle.decode(rle, 4, 4)


def test_a_mask_that_declares_a_billion_pixels_is_refused_before_allocation():
    declares = [*(10**9).to_bytes(4, "big"), 57, 39, 0, 0, 0, 0]
    with pytest.raises(BadMaskError, match="declares 1000000000 values"):
        brush_rle.decode(declares, 4, 4)


@given(length_classes, st.lists(st.integers(0, 255), max_size=60))
def test_any_bytes_are_the_mask_that_the_sdk_reads_or_a_clear_refusal(length_bits, noise):
    header = stream(16, length_bits, [])
    # The header ends inside a byte: the noise begins there, so that every run can be drawn.
    rle = [*header[:-1], header[-1] | (noise[0] >> HEADER_BITS % 8 if noise else 0), *noise[1:]]
    try:
        mask_hw = brush_rle.decode(rle, 2, 2)
    except BadMaskError:
        return
    assert np.array_equal(mask_hw, sdk_alpha(rle, (2, 2)))


numbers = st.integers(1, 32).flatmap(lambda width: st.tuples(st.integers(0, 2**width - 1), st.just(width)))


@given(st.lists(numbers, min_size=1, max_size=50))
def test_codes_are_joined_bit_by_bit(codes):
    joined = join_codes(np.array([c for c, _ in codes]), np.array([w for _, w in codes]))
    bits = "".join(f"{code:0{width}b}" for code, width in codes)
    assert joined.tolist() == [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]


@given(st.binary(max_size=20), st.integers(1, WIDEST_READ), st.data())
def test_numbers_are_read_at_any_bit_one_by_one_and_many_at_once(data, width, draw):
    stream = BitStream(data)
    bits = "".join(f"{byte:08b}" for byte in data) + "0" * 40
    places = draw.draw(st.lists(st.integers(0, stream.size), max_size=10))
    expected = [int(bits[at : at + width], 2) for at in places]
    assert [stream.read(at, width) for at in places] == expected
    assert stream.read_many(np.array(places, np.int64), width).tolist() == expected

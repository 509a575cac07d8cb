from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_studio_sdk.converter import brush

from refcut_backend.core import brush_rle
from refcut_backend.errors import BadMaskError

masks = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(masks)
def test_encoding_and_decoding_give_the_mask_back(mask_hw):
    assert np.array_equal(brush_rle.decode(brush_rle.encode(mask_hw), *mask_hw.shape), mask_hw)


@given(masks)
def test_the_sdk_decodes_what_we_encode(mask_hw):
    decoded = brush.decode_rle(brush_rle.encode(mask_hw)).reshape(*mask_hw.shape, 4)
    assert np.array_equal(decoded > 0, np.repeat(mask_hw[..., None], 4, axis=2))


@given(masks)
def test_we_decode_what_the_sdk_encodes(mask_hw):
    rgba = np.repeat(mask_hw.reshape(-1), 4).astype(np.uint8) * 255
    assert np.array_equal(brush_rle.decode(brush.encode_rle(rgba), *mask_hw.shape), mask_hw)


def test_a_run_longer_than_the_widest_length_class_is_split():
    mask_hw = np.zeros((300, 700), bool)
    mask_hw[100:200] = True
    assert np.array_equal(brush_rle.decode(brush_rle.encode(mask_hw), 300, 700), mask_hw)


@pytest.mark.parametrize(
    "rle",
    [
        [],
        [0] * 6,
        [255] * 40,
        [1, 2, 300],
        ["a"],
        [[1, 2]],
        [-1] * 9,
        brush_rle.encode(np.ones((5, 4), bool)),
        brush_rle.encode(np.eye(4, dtype=bool))[:-4],
    ],
)
def test_a_mask_that_is_damaged_or_of_another_size_is_refused(rle):
    with pytest.raises(BadMaskError):
        brush_rle.decode(rle, 4, 4)


def test_a_mask_that_declares_a_billion_pixels_is_refused_before_allocation():
    declares = [*(10**9).to_bytes(4, "big"), 57, 39, 0, 0, 0, 0]
    with pytest.raises(BadMaskError, match="declares 1000000000 values"):
        brush_rle.decode(declares, 4, 4)


@given(st.lists(st.integers(0, 255), max_size=60))
def test_any_bytes_are_a_mask_or_a_clear_refusal(rle):
    declared = [*(16).to_bytes(4, "big"), *rle]
    with contextlib.suppress(BadMaskError):
        assert brush_rle.decode(declared, 2, 2).shape == (2, 2)

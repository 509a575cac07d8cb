from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.label_studio.payloads import PredictRequest, without_masks
from tests.support.recorded import brush_result, recorded

texts = st.text(st.sampled_from('"rle\\[]:,1 '), max_size=12)
lists_of_bytes = st.lists(st.integers(0, 255), max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | st.just("rle"), inner | lists_of_bytes)
    ),
    max_leaves=20,
)


def emptied(value: object) -> object:
    """What `without_masks` must mean: lists of bare values under a key that ends in `rle` are empty."""
    if isinstance(value, list):
        return [emptied(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: [] if is_mask(key, item) else emptied(item) for key, item in value.items()}


def is_mask(key: str, item: object) -> bool:
    named = key == "rle" or key.endswith('"rle')
    return named and isinstance(item, list) and not any(isinstance(n, str | list | dict) for n in item)


@given(documents, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_only_masks_are_cut_out_whatever_else_the_json_holds(document, separators, ascii_only):
    body = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    assert json.loads(without_masks(body)) == emptied(document)


def test_masks_of_annotations_and_drafts_are_never_parsed_and_change_nothing():
    body = recorded("predict_interactive_3clicks_full")["body"]
    plain = PredictRequest.model_validate(body)
    region = brush_result("r", "Cat", np.eye(30, dtype=bool))
    body["tasks"][0]["annotations"] = [{"id": 1, "result": [region] * 5}]
    body["tasks"][0]["drafts"] = [{"id": 2, "result": [region]}]
    raw = json.dumps(body, indent=1).encode()
    cut = without_masks(raw)
    assert len(cut) < len(raw) - 6 * len(region["value"]["rle"])
    read = PredictRequest.model_validate_json(cut)
    assert read.params == plain.params
    assert read.tasks[0].data == plain.tasks[0].data


def test_what_is_made_to_take_long_takes_no_longer_than_its_length():
    """Quadratic time would be many minutes here."""
    keys = b'"rle":[' * 200_000
    assert without_masks(keys + b"]") == keys + b"]"
    assert without_masks(keys) == keys
    nested = b'{"rle":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert without_masks(nested * 3) == nested * 3

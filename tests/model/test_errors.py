"""Errors cross from a worker process to the one that tells the user."""

from __future__ import annotations

import pickle

import pytest

from model.errors import DataError, ModelError, WeightsError


@pytest.mark.parametrize("kind", [ModelError, WeightsError, DataError])
def test_an_error_is_the_same_after_a_way_between_processes(kind: type[ModelError]) -> None:
    sent = kind("base.safetensors is missing", hint="check the path")

    received = pickle.loads(pickle.dumps(sent))

    assert type(received) is kind
    assert (str(received), received.message, received.hint) == (str(sent), sent.message, sent.hint)

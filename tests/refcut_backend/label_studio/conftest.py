from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_label_studio import FakeLabelStudio, running


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with running(FakeLabelStudio()) as fake:
        yield fake

from __future__ import annotations

import pytest

from refcut_backend.core.image_address import check_address, image_of_task
from refcut_backend.errors import ImageError

LABEL_STUDIO = "http://labels.example:8080/prefix"


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/2/a.png",
        "/data/local-files/?d=a/b.png",
        "s3://bucket/a.png",
        "http://labels.example:8080/a.png",
        "https://images.example/a.png",
    ],
)
def test_label_studios_own_and_allowed_addresses_pass(address):
    check_address(address, LABEL_STUDIO, frozenset({"images.example"}))


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest",
        "http://127.0.0.1:6379/",
        "http://labels.example:6379/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://labels.example/",
        "//evil.example/a.png",
        "http://labels.example:8080@evil.example/a.png",
        "a.png",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ImageError):
        check_address(address, LABEL_STUDIO, frozenset({"images.example"}))


@pytest.mark.parametrize("data", [{}, {"image": None}, {"image": ""}, {"image": 3}])
def test_a_task_without_an_image_says_which_field_is_missing(data):
    with pytest.raises(ImageError, match="'image'"):
        image_of_task(data, "image")

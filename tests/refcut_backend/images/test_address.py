from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import ImageError
from refcut_backend.images.address import (
    CloudFile,
    LabelStudioFile,
    WebFile,
    image_of_task,
    local_file_key,
    locate,
    upload_key,
)
from refcut_backend.label_studio.label_config import Control

PLAIN = ("http://ls:8080",)
BELOW = ("http://ls:8080/labeling", "http://localhost/labeling")


@pytest.mark.parametrize(
    ("address", "homes", "location"),
    [
        ("/data/upload/2/a.png", PLAIN, LabelStudioFile("/data/upload/2/a.png")),
        ("upload/2/a.png", PLAIN, LabelStudioFile("/data/upload/2/a.png")),
        ("/upload/2/a.png", PLAIN, LabelStudioFile("/data/upload/2/a.png")),
        (
            "http://ls:8080/data/local-files/?d=a/b.png",
            PLAIN,
            LabelStudioFile("/data/local-files/?d=a/b.png"),
        ),
        ("HTTP://LS:8080/a.png", PLAIN, LabelStudioFile("/a.png")),
        ("/labeling/data/upload/2/a.png", BELOW, LabelStudioFile("/data/upload/2/a.png")),
        ("/data/upload/2/a.png", BELOW, LabelStudioFile("/data/upload/2/a.png")),
        ("http://ls:8080/labeling/data/upload/2/a.png", BELOW, LabelStudioFile("/data/upload/2/a.png")),
        ("http://localhost/labeling/data/upload/2/a.png", BELOW, LabelStudioFile("/data/upload/2/a.png")),
        ("http://ls:8080/labelingx/a.png", BELOW, WebFile("http://ls:8080/labelingx/a.png")),
        ("/labelingx/a.png", BELOW, LabelStudioFile("/labelingx/a.png")),
        ("http://ls:6379/", PLAIN, WebFile("http://ls:6379/")),
        ("https://ls:8080/a.png", ("https://ls:8080",), LabelStudioFile("/a.png")),
        ("http://ls/a.png", ("http://ls:80",), LabelStudioFile("/a.png")),
        ("https://bucket.s3.amazonaws.com/k?X=1", PLAIN, WebFile("https://bucket.s3.amazonaws.com/k?X=1")),
        ("s3://bucket/key", PLAIN, CloudFile("s3://bucket/key")),
        ("gs://bucket/key", PLAIN, CloudFile("gs://bucket/key")),
        ("azure-blob://box/key", PLAIN, CloudFile("azure-blob://box/key")),
    ],
)
def test_an_address_is_located(address, homes, location):
    assert locate(address, homes) == location


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "gopher://x/",
        "ftp://x/a.png",
        "data:image/png;base64,AA",
        "//evil.example/a.png",
        "http:///a.png",
        "http://[::1/a.png",
        "http://ls:99999/a.png",
        "C:\\pictures\\a.png",
        "a.png",
        "../a.png",
        "",
        "/data/upload/2/a.png%00.txt",
        "/data/\nupload",
        "/data/%0aupload",
        "/data/upload/../../api/users",
        "/data/upload/%2e%2e/%2E./api/users",
        "/data/local-files/?d=../../etc/passwd",
        "/data/local-files/?d=a/%2e%2e/%2e%2e/etc/passwd",
        "http://ls:8080/data/local-files/?d=..\\..\\secret",
    ],
)
def test_other_addresses_are_never_fetched(address):
    with pytest.raises(ImageError):
        locate(address, PLAIN)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused_with_advice(address):
    hint = "taken"
    try:
        locate(address, PLAIN)
    except ImageError as error:
        hint = error.hint
    assert hint


def test_label_studio_signs_cloud_files_by_task():
    assert (
        CloudFile("s3://bucket/a b.jpg").signing_path(7)
        == "/tasks/7/presign/?fileuri=czM6Ly9idWNrZXQvYSBiLmpwZw=="
    )


@pytest.mark.parametrize(
    ("path", "upload", "local"),
    [
        ("/data/upload/3/cat%20one.png", "3/cat one.png", None),
        ("/data/local-files/?d=cars%2Fa.png", None, "cars/a.png"),
        ("/data/local-files?d=one&d=two", None, "two"),
        ("/data/local-files/?x=1", None, ""),
        ("/static/sample.jpg", None, None),
    ],
)
def test_files_that_may_lie_in_a_mounted_folder_are_known_by_their_key(path, upload, local):
    assert (upload_key(LabelStudioFile(path)), local_file_key(LabelStudioFile(path))) == (upload, local)


@pytest.mark.parametrize("data", [{}, {"photo": None}, {"photo": ""}, {"photo": 3}, {"photo": []}])
def test_a_task_without_an_image_says_what_was_looked_for(data):
    control = Control("brush", "image", "$photo", frozenset({"Door"}), "brush", "false")
    with pytest.raises(ImageError, match=r"'\$photo'"):
        image_of_task(data, control)

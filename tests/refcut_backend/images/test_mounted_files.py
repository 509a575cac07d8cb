from __future__ import annotations

import os
from pathlib import Path

import pytest

from refcut_backend.errors import ImageError, TooLargeError
from refcut_backend.images.address import LabelStudioFile
from refcut_backend.images.mounted_files import MountedFile, MountedFolders


@pytest.fixture
def folders(tmp_path: Path) -> MountedFolders:
    for name in ("shared/cars", "uploads/3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "shared" / "cars" / "a b.png").write_bytes(b"shared")
    (tmp_path / "uploads" / "3" / "c.png").write_bytes(b"upload")
    return MountedFolders(tmp_path / "shared", tmp_path / "uploads")


def read(folders: MountedFolders, path: str, max_bytes: int = 100) -> MountedFile | None:
    return folders.read(LabelStudioFile(path), max_bytes)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/data/local-files/?d=cars/a%20b.png", b"shared"),
        ("/data/local-files?d=cars%2Fa+b.png", b"shared"),
        ("/data/upload/3/c.png", b"upload"),
    ],
)
def test_a_file_in_a_mounted_folder_is_read_directly(folders, path, data):
    found = read(folders, path)
    assert found is not None
    assert found.data == data


@pytest.mark.parametrize(
    "path",
    [
        "/data/local-files/?d=cars/missing.png",
        "/data/upload/3/missing.png",
        "/data/upload/3/c.png/more",
        "/static/sample.jpg",
        f"/data/upload/{'x' * 300}.png",
    ],
)
def test_label_studio_is_asked_for_what_is_not_there(folders, path):
    assert read(folders, path) is None
    assert read(MountedFolders(), "/data/upload/3/c.png") is None


@pytest.mark.parametrize(
    "path",
    [
        "/data/local-files/?d=../secret.png",
        "/data/local-files/?d=cars/../../secret.png",
        "/data/local-files/?d=%2e%2e/secret.png",
        "/data/local-files/?d=..%2Fsecret.png",
        "/data/local-files/?d=..\\secret.png",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=%2Fetc%2Fpasswd",
        "/data/local-files/?d=cars/a%00.png",
        "/data/local-files/?d=",
        "/data/local-files/",
        "/data/upload/../secret.png",
        "/data/upload/%2e%2e/secret.png",
        "/data/upload//etc/passwd",
        "/data/local-files/?d=cars",
        "/data/local-files/?d=.",
    ],
)
def test_a_path_out_of_the_folder_is_refused(folders, path):
    with pytest.raises(ImageError, match="mounted folder"):
        read(folders, path)


def test_a_doubly_encoded_climb_is_a_name_that_is_not_there(folders):
    assert read(folders, "/data/local-files/?d=%252e%252e/secret.png") is None


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(folders, tmp_path):
    (tmp_path / "shared" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "shared" / "in.png").symlink_to("cars/a b.png")
    (tmp_path / "shared" / "folder").symlink_to(tmp_path)
    with pytest.raises(ImageError, match="mounted folder"):
        read(folders, "/data/local-files/?d=out.png")
    with pytest.raises(ImageError, match="mounted folder"):
        read(folders, "/data/local-files/?d=folder/secret.png")
    found = read(folders, "/data/local-files/?d=in.png")
    assert found is not None
    assert found.data == b"shared"


def test_links_in_a_circle_are_not_there(folders, tmp_path):
    (tmp_path / "shared" / "one").symlink_to("two")
    (tmp_path / "shared" / "two").symlink_to("one")
    assert read(folders, "/data/local-files/?d=one") is None


def test_a_pipe_does_not_hold_the_worker(folders, tmp_path):
    os.mkfifo(tmp_path / "shared" / "pipe.png")
    with pytest.raises(ImageError, match="mounted folder"):
        read(folders, "/data/local-files/?d=pipe.png")


def test_a_mounted_file_over_the_limit_is_refused(folders):
    with pytest.raises(TooLargeError, match="REFCUT_IMAGE_MAX_BYTES"):
        read(folders, "/data/upload/3/c.png", max_bytes=5)


def test_a_file_is_not_read_again_until_it_changes(folders, tmp_path):
    file = LabelStudioFile("/data/upload/3/c.png")
    first = folders.read(file, 100)
    assert first is not None
    assert folders.read(file, 100, first.stamp) == MountedFile(None, first.stamp)
    (tmp_path / "uploads" / "3" / "new.png").write_bytes(b"update")
    (tmp_path / "uploads" / "3" / "new.png").replace(tmp_path / "uploads" / "3" / "c.png")
    again = folders.read(file, 100, first.stamp)
    assert again is not None
    assert again.data == b"update"

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from refcut_backend.errors import ImageError
from refcut_backend.settings import Settings
from refcut_backend.store.projects import Connection
from refcut_backend.worker.images import decode_image, fetch_image

TOKEN = "c" * 40


class Handler(BaseHTTPRequestHandler):
    """A Label Studio that has one upload, one redirect to another host, and one large file."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        self.seen.append((self.path, token))
        if self.path.startswith("/storage-data"):
            self.send_error(404)
        elif token != f"Token {TOKEN}":
            self.send_error(401)
        elif "elsewhere" in self.path:
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/secret")
            self.end_headers()
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (5000 if "large" in self.path else 10))

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def label_studio() -> Iterator[str]:
    Handler.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(address: str, label_studio: str, token: str = TOKEN) -> bytes:
    settings = Settings(image_max_bytes=4000, image_timeout_s=3)
    return fetch_image(address, 1, Connection(label_studio, token), settings)


def test_an_upload_is_fetched_with_the_token_that_label_studio_handed_over(label_studio):
    assert fetch("/data/upload/2/a.png", label_studio) == b"x" * 10


def test_a_refused_token_says_what_to_do(label_studio):
    with pytest.raises(ImageError, match="REFCUT_ACCESS_TOKEN") as error:
        fetch("/data/upload/2/a.png", label_studio, token="wrong")
    assert "wrong" not in str(error.value)


def test_a_file_over_the_limit_is_not_read_to_its_end(label_studio):
    with pytest.raises(ImageError, match="REFCUT_IMAGE_MAX_BYTES"):
        fetch("/data/upload/2/large.png", label_studio)


def test_a_redirect_to_a_host_that_was_not_allowed_is_not_followed(label_studio):
    with pytest.raises(ImageError, match="REFCUT_IMAGE_HOSTS"):
        fetch("/data/upload/2/elsewhere.png", label_studio)


def test_an_unreachable_label_studio_is_named():
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:9 cannot be reached"):
        fetch("/data/upload/2/a.png", "http://127.0.0.1:9")


def picture(mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: object) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size).save(data, **({"format": "PNG"} | options))
    return data.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode):
    image = decode_image(picture(mode), 1000)
    assert (image.shape, image.dtype) == ((4, 6, 3), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_as_the_browser_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(picture(format="JPEG", exif=exif), 1000)
    assert image.shape[:2] == ((6, 4) if orientation >= 5 else (4, 6))


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(ImageError, match="REFCUT_IMAGE_MAX_PIXELS"):
        decode_image(picture(size=(100, 100)), 9999)


@pytest.mark.parametrize("data", [b"", b"no picture", picture()[:40], picture(format="GIF")])
def test_what_is_no_picture_of_an_allowed_format_is_refused(data):
    with pytest.raises(ImageError):
        decode_image(data, 1000)

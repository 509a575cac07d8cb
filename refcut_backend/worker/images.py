"""Fetches a task's image from Label Studio and decodes it, within limits."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path, http_session
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DataError
from model.images import to_rgb
from refcut_backend.core.image_address import check_address
from refcut_backend.errors import ImageError
from refcut_backend.settings import Settings
from refcut_backend.store.projects import Connection

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
CHUNK_BYTES = 1 << 16


class LimitedSession(requests.Session):
    """A session for one image: bounded in bytes and time; follows redirects only to hosts that may be asked."""

    def __init__(
        self, label_studio: str, allowed_hosts: frozenset[str], max_bytes: int, timeout_s: float
    ) -> None:
        super().__init__()
        self.trust_env = False
        self._label_studio = label_studio
        self._allowed_hosts = allowed_hosts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self.refusal: ImageError | None = None
        self.last_status = 0

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Every hop of a redirect passes here.

        The SDK tries two addresses for an upload and reports the first one's failure; what went wrong with the last
        one is kept here, since that is what can be mended.
        """
        try:
            check_address(str(request.url), self._label_studio, self._allowed_hosts)
            response = super().send(request, **(kwargs | {"timeout": self._timeout_s, "stream": True}))
            self.last_status = response.status_code
            if not response.is_redirect and not response._content_consumed:  # type: ignore[attr-defined]
                response._content = self._read(response)
                response._content_consumed = True  # type: ignore[attr-defined]
            return response
        except ImageError as error:
            self.refusal = error
            raise

    def _read(self, response: requests.Response) -> bytes:
        data = io.BytesIO()
        for chunk in response.iter_content(CHUNK_BYTES):
            data.write(chunk)
            if data.tell() > self._max_bytes:
                raise ImageError(
                    f"the image file is larger than {self._max_bytes} bytes",
                    hint="REFCUT_IMAGE_MAX_BYTES sets the limit",
                )
        return data.getvalue()


def fetch_image(address: str, task_id: int, connection: Connection, settings: Settings) -> bytes:
    """The bytes of a task's image. Raises ImageError that says what to do when they cannot be had.

    label-studio-sdk resolves the address (uploads, local files, cloud storage) and sends the token to Label Studio's host
    only; the session adds limits and looks at every address asked.
    """
    check_address(address, connection.label_studio, settings.allowed_image_hosts)
    session = LimitedSession(
        connection.label_studio,
        settings.allowed_image_hosts,
        settings.image_max_bytes,
        settings.image_timeout_s,
    )
    with session, tempfile.TemporaryDirectory(prefix="refcut-image-") as folder, http_session(session):
        try:
            path = get_local_path(
                address,
                cache_dir=folder,
                # An empty folder: files of a Label Studio that happens to run on this machine are never read directly.
                image_dir=str(Path(folder) / "none"),
                hostname=connection.label_studio,
                access_token=connection.access_token,
                task_id=task_id,
            )
            return Path(path).read_bytes()
        except requests.HTTPError:
            raise session.refusal or _http_problem(session.last_status, connection) from None
        except requests.RequestException as error:
            raise ImageError(
                f"Label Studio at {_origin(connection)} cannot be reached for the image ({type(error).__name__})",
                hint="LABEL_STUDIO_HOST must be an address that this machine can reach",
            ) from None
        except (FileNotFoundError, ValueError) as error:
            raise ImageError(
                f"the image's address cannot be resolved ({type(error).__name__})",
                hint="check the task's image address, and that /setup handed over hostname and token",
            ) from None


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Image file to RGB (H, W, 3) uint8 with its EXIF orientation applied, as the browser shows it.

    Raises ImageError for formats that are not allowed, for too many pixels (before they are decoded), for damage.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"the image has {image.width} x {image.height} pixels",
                    hint="REFCUT_IMAGE_MAX_PIXELS sets the limit",
                )
            return to_rgb(ImageOps.exif_transpose(image), "the image")
    except UnidentifiedImageError:
        raise ImageError(
            "the file is no image of an allowed format", hint=f"allowed: {', '.join(FORMATS)}"
        ) from None
    except DataError as error:
        raise ImageError(error.message, hint=error.hint) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"the image is damaged ({type(error).__name__})", hint="open it in a viewer"
        ) from None


def _http_problem(status: int, connection: Connection) -> ImageError:
    if status in (401, 403):
        return ImageError(
            f"Label Studio at {_origin(connection)} refuses the image ({status})",
            hint="enable legacy tokens in the organization, or set REFCUT_ACCESS_TOKEN to a token that works",
        )
    return ImageError(
        f"Label Studio at {_origin(connection)} answers {status} for the image",
        hint="open the task's image in a browser: does the file still exist?",
    )


def _origin(connection: Connection) -> str:
    parts = urlsplit(connection.label_studio)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"

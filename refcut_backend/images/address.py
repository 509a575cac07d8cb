"""Where a task's image is: in Label Studio, in cloud storage that Label Studio signs for, or somewhere on the web."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from refcut_backend.errors import ImageError


@dataclass(frozen=True)
class TaskImage:
    """Which image: the address alone would not do, since every project has a token of its own."""

    project_id: int
    task_id: int
    address: str


CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
UPLOADS = "/data/upload/"
LOCAL_FILES = "/data/local-files/"


@dataclass(frozen=True)
class LabelStudioFile:
    """A file that Label Studio serves. path: with its query, below Label Studio's base path."""

    path: str


@dataclass(frozen=True)
class CloudFile:
    """A file in cloud storage for which Label Studio makes a signed link. uri: as in s3://bucket/key."""

    uri: str

    def signing_path(self, task_id: int) -> str:
        """Where Label Studio redirects to the signed link (contract, section 4)."""
        encoded = base64.urlsafe_b64encode(self.uri.encode()).decode()
        return f"/tasks/{task_id}/presign/?fileuri={encoded}"


@dataclass(frozen=True)
class WebFile:
    """A file anywhere else, fetched without a token."""

    url: str


Location = LabelStudioFile | CloudFile | WebFile


def image_of_task(task_data: dict[str, Any], field: str) -> str:
    """The address in a task's data under the Image tag's `value`. Raises ImageError when there is none."""
    address = task_data.get(field)
    if not isinstance(address, str) or not address:
        raise ImageError(
            f"the task's data has no image address under '{field}'", hint="check `value` of the Image tag"
        )
    return address


def locate(address: str, label_studio: Iterable[str]) -> Location:
    """What a task's image address means. label_studio: the addresses under which Label Studio is known, base path
    included: under http://host/labeling its own files are /labeling/data/... in some tasks and /data/... in others.

    Raises ImageError for addresses that are none, and for those that are never fetched (file:, ftp:, data: ...).
    """
    address = address.strip()
    if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in unquote(address)):
        raise ImageError("the image's address holds control characters", hint="correct it in the task's data")
    try:
        parts = urlsplit(address)
        homes = [urlsplit(home.rstrip("/")) for home in label_studio if home]
        if parts.scheme in CLOUD_SCHEMES:
            return CloudFile(address)
        if parts.scheme in ("http", "https") and parts.hostname:
            return _on_the_web(address, parts, homes)
    except ValueError:
        raise ImageError("the image's address is not valid", hint="correct it in the task's data") from None
    if parts.scheme or parts.netloc:
        raise ImageError(
            f"images are not fetched from '{parts.scheme or '//'}' addresses",
            hint="use http, https, s3, gs or azure-blob",
        )
    if address.startswith(("upload/", "/upload/")):
        address = f"/data/{address.lstrip('/')}"
    if not address.startswith("/"):
        raise ImageError("the image's address is a bare name", hint="it must begin with / or with http")
    return _file(_below(address, homes))


def _on_the_web(address: str, parts: SplitResult, homes: list[SplitResult]) -> Location:
    for home in homes:
        if _server(parts) == _server(home) and f"{parts.path}/".startswith(f"{home.path}/"):
            path = parts.path.removeprefix(home.path) or "/"
            return _file(f"{path}?{parts.query}" if parts.query else path)
    return WebFile(address)


def _file(path: str) -> LabelStudioFile:
    if ".." in re.split(r"[/\\=&?]", unquote(path)):
        raise ImageError("the image's path climbs out of its folder", hint="correct it in the task's data")
    return LabelStudioFile(path)


def _server(parts: SplitResult) -> tuple[str, int]:
    return (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def _below(address: str, homes: list[SplitResult]) -> str:
    for home in homes:
        if home.path and address.startswith(f"{home.path}/"):
            return address.removeprefix(home.path)
    return address


def upload_key(file: LabelStudioFile) -> str | None:
    """`3/cat.png` of an upload, decoded once; None for other files."""
    path = urlsplit(file.path).path
    return unquote(path.removeprefix(UPLOADS)) if path.startswith(UPLOADS) else None


def local_file_key(file: LabelStudioFile) -> str | None:
    """What follows `?d=` of a file in Label Studio's document root, decoded once; None for other files.

    Of several the last one counts, as in Label Studio.
    """
    parts = urlsplit(file.path)
    if f"{parts.path.rstrip('/')}/" != LOCAL_FILES:
        return None
    return parse_qs(parts.query).get("d", [""])[-1]

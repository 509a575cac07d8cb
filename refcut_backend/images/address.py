"""Interprets the address of a task's image: a file of Label Studio, an object in cloud storage, or a file on the web.

To support a new scheme of addresses, extend `locate` here, and `fetch.py` if it needs another way of fetching.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from refcut_backend.errors import ImageError
from refcut_backend.label_studio.label_config import Control


@dataclass(frozen=True)
class TaskImage:
    """Identifies the image of a task. The address alone is not enough, because every project has its own token."""

    project_id: int
    task_id: int
    address: str


CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
UPLOADS = "/data/upload/"
LOCAL_FILES = "/data/local-files/"


@dataclass(frozen=True)
class LabelStudioFile:
    """A file that Label Studio serves. `path` is below Label Studio's base path and includes the query."""

    path: str


@dataclass(frozen=True)
class CloudFile:
    """A file in cloud storage for which Label Studio makes a signed link. `uri` is of the form s3://bucket/key."""

    uri: str

    def signing_path(self, task_id: int) -> str:
        """Returns the path at which Label Studio redirects to the signed link (contract, section 4)."""
        encoded = base64.urlsafe_b64encode(self.uri.encode()).decode()
        return f"/tasks/{task_id}/presign/?fileuri={encoded}"


@dataclass(frozen=True)
class WebFile:
    """A file on any other server, fetched without a token."""

    url: str


Location = LabelStudioFile | CloudFile | WebFile


def image_of_task(task_data: dict[str, Any], control: Control) -> str:
    """Returns the address of the image that a control draws on.

    Args:
        task_data: The task's `data`.
        control: A control of the task.

    Raises:
        ImageError: The task's data has no address where the image tag looks for it.
    """
    address = control.image_address(task_data)
    if not isinstance(address, str) or not address:
        raise ImageError(
            f"the task's data has no image address for '{control.to_name}', whose value is '{control.image_value}'",
            hint="check `value` of the Image tag",
        )
    return address


def locate(address: str, label_studio: Iterable[str]) -> Location:
    """Interprets the address of a task's image.

    Args:
        address: Address as it stands in the task's data.
        label_studio: Addresses under which Label Studio is known, base path included. If Label Studio is at
            http://host/labeling, its own files are /labeling/data/... in some tasks and /data/... in others.

    Raises:
        ImageError: The address is invalid, or of a kind that is never fetched (file:, ftp:, data: and others).
    """
    address = address.strip()
    if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in unquote(address)):
        raise ImageError(
            "the image's address contains control characters", hint="correct it in the task's data"
        )
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
    """Returns the path of an upload, such as `3/cat.png`, percent-decoded once; None for other files."""
    path = urlsplit(file.path).path
    return unquote(path.removeprefix(UPLOADS)) if path.startswith(UPLOADS) else None


def local_file_key(file: LabelStudioFile) -> str | None:
    """Returns the parameter `d` of a file in Label Studio's document root, percent-decoded once; None for other files.

    If there are several, the last one counts, as in Label Studio.
    """
    parts = urlsplit(file.path)
    if f"{parts.path.rstrip('/')}/" != LOCAL_FILES:
        return None
    return parse_qs(parts.query).get("d", [""])[-1]

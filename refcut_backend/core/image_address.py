"""Where a task's image is: Label Studio's own addresses, and which hosts may be asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from refcut_backend.errors import ImageError


def image_of_task(task_data: dict[str, Any], field: str) -> str:
    """The address in a task's data under the Image tag's `value`. Raises ImageError when there is none."""
    address = task_data.get(field)
    if not isinstance(address, str) or not address:
        raise ImageError(
            f"the task's data has no image address under '{field}'", hint="check `value` of the Image tag"
        )
    return address


def check_address(address: str, label_studio: str, allowed_hosts: frozenset[str]) -> None:
    """Refuses addresses that the backend must not ask. Raises ImageError that says what to set.

    Relative addresses and cloud storage go through Label Studio itself. Absolute ones must lie on Label Studio's host or
    on one that the engineer allowed: a task may be written by anyone who can import, and must not make this server fetch
    from inside its network.
    """
    parts = urlsplit(address)
    if not parts.scheme and not parts.netloc and address.startswith("/"):
        return
    if parts.scheme in ("s3", "gs", "azure-blob"):
        return
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"images are not fetched from '{parts.scheme or 'a bare name'}:' addresses")
    own = urlsplit(label_studio)
    if (parts.hostname, parts.port) == (own.hostname, own.port) or parts.hostname.lower() in allowed_hosts:
        return
    raise ImageError(
        f"the task's image lies on {parts.hostname}, which is not Label Studio's host",
        hint="add the host to REFCUT_IMAGE_HOSTS if the backend may fetch from it",
    )

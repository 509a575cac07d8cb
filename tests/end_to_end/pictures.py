"""Pictures for README and docs, taken while the tests run: `REFCUT_PICTURES=docs/images make browser-test`."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import FloatRect, Page

FOLDER = "REFCUT_PICTURES"
"""Environment variable with the folder to write to. Without it no picture is taken."""
QUALITY = 88


def picture(page: Page, name: str, *, clip: FloatRect | None = None, whole_page: bool = False) -> None:
    """Take a picture of what the page shows now.

    Args:
        page: The page.
        name: File name without its suffix.
        clip: Part of the page in CSS pixels; None for all that is visible.
        whole_page: Whether to take what one has to scroll to, too.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    page.wait_for_timeout(500)  # a mask is decoded after its region exists, and panels glide
    path = Path(folder) / f"{name}.jpg"
    page.screenshot(path=path, type="jpeg", quality=QUALITY, clip=clip, full_page=whole_page)

"""Images are decoded as the browser shows them, whatever marks of orientation they carry."""

from __future__ import annotations

import base64
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from refcut_backend.images.decode import decode_image
from tests.support.orientation_files import ORIENTATION_FILES

MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
DRAW = """async ([address]) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.width, canvas.height, Array.from(pixels)];
}"""


def test_every_image_is_decoded_as_the_browser_shows_it():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    # In a thread of its own: another test of this process may have a browser open, and each needs an event loop.
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(_differing, chromium).result() == []


def _differing(chromium: str) -> list[str]:
    """Names of the images that the browser shows otherwise."""
    differing = []
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium) as browser:
        page = browser.new_page()
        for name, data in ORIENTATION_FILES.items():
            address = f"data:{MIME[name.rpartition('.')[2]]};base64,{base64.b64encode(data).decode()}"
            width, height, pixels = page.evaluate(DRAW, [address])
            shown = np.array(pixels).reshape(height, width, 4)[..., :3]
            decoded = decode_image(data, 10_000).astype(int)
            if decoded.shape != shown.shape or np.abs(decoded - shown).max() > 40:
                differing.append(name)
    return differing

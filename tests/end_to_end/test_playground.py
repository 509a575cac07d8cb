"""The playground in a real browser: from the page to a downloaded mask, with the model that ships."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import FloatRect, Page, expect

from tests.end_to_end.pictures import picture
from tests.end_to_end.world import World

LIMIT_MS = 120_000
WHEEL = (0.49, 0.65)
"""Place of the front wheel on the first photograph, as shares of its width and height."""
WITHOUT_STRIP: FloatRect = {"x": 0, "y": 0, "width": 1440, "height": 745}


@pytest.fixture
def page(world: World) -> Iterator[Page]:
    """A page in a browser that knows nothing of Label Studio."""
    browser = world.editor.page.context.browser
    assert browser is not None
    with browser.new_context(accept_downloads=True, viewport={"width": 1440, "height": 1000}) as context:
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        yield page


def click(page: Page, place: tuple[float, float], canvas: str = "#with") -> None:
    area = page.locator(canvas).bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + place[0] * area["width"], area["y"] + place[1] * area["height"])
    expect(page.locator("#message")).to_contain_text(" ms (", timeout=LIMIT_MS)


def test_from_the_page_to_a_downloaded_mask_without_a_request_to_another_machine(
    page: Page, world: World, tmp_path: Path
) -> None:
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(world.backend)
    expect(page.locator("#references li")).to_have_count(1, timeout=LIMIT_MS)
    click(page, WHEEL)
    expect(page.locator("#figure-with")).to_have_text(re.compile(r"expected IoU 0?\.?\d"))
    expect(page.locator("#figure-alone")).to_have_text(re.compile(r"expected IoU"))
    picture(page, "playground", clip=WITHOUT_STRIP)
    with page.expect_download() as waiting:
        page.locator("[data-download=mask]").click()
    waiting.value.save_as(tmp_path / "mask.png")
    mask = cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    share = float((mask > 127).mean())
    row, column = int(WHEEL[1] * mask.shape[0]), int(WHEEL[0] * mask.shape[1])
    assert mask[row, column] > 127
    assert 0.005 < share < 0.1, "a wheel, not the car"
    assert {urlsplit(url).hostname for url in asked if not url.startswith("blob:")} == {"127.0.0.1"}
    assert problems == []


def test_another_reference_gives_the_same_click_another_meaning_and_ctrl_z_takes_it_back(
    page: Page, world: World
) -> None:
    page.goto(world.backend)
    expect(page.locator("#references li")).to_have_count(1, timeout=LIMIT_MS)
    click(page, WHEEL)
    small = drawn_share(page)
    page.locator("#labels button", has_text="Whole").click()
    expect(page.locator("#references li span")).to_contain_text("Whole", timeout=LIMIT_MS)
    expect(page.locator("#message")).to_contain_text(" ms (", timeout=LIMIT_MS)
    assert drawn_share(page) > 3 * small
    page.keyboard.press("Control+z")
    expect(page.locator("#figure-with")).to_have_text("")


def test_everything_goes_by_keyboard_and_a_hostile_file_name_is_text(
    page: Page, world: World, tmp_path: Path
) -> None:
    page.goto(world.backend)
    expect(page.locator("#references li")).to_have_count(1, timeout=LIMIT_MS)
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    cv2.imwrite(str(hostile), np.full((80, 120, 3), 150, np.uint8))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.locator("#file").set_input_files(str(hostile))
    expect(page.locator("#strip [aria-current=true]")).to_have_attribute("data-name", hostile.name)
    page.locator("#with").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text(" ms (", timeout=LIMIT_MS)
    page.keyboard.press("Escape")
    expect(page.locator("#message")).to_have_text("Click on the thing.")
    assert dialogs == []


def drawn_share(page: Page) -> float:
    """Share of the left picture that is not the same without its mask."""
    with page.expect_download() as waiting:
        page.locator("[data-download=mask]").click()
    mask = cv2.imread(str(waiting.value.path()), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return float((mask > 127).mean())

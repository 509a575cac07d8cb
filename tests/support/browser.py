"""A page in Chromium that notes what must not happen: requests to other machines, scripts that fail, dialogs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.end_to_end.editor import launch_chromium

LIMIT_MS = 60_000
WIDTHS = (1440, 390)
RUN_AXE = "axe.run({resultTypes: ['violations'], preload: false}).then((found) => found.violations)"


@dataclass
class Watched:
    """A page and what happened on it.

    Attributes:
        page: The page.
        hosts: Hosts that it sent requests to.
        problems: Errors of its scripts, refusals of its Content-Security-Policy, and texts of dialogs.
    """

    page: Page
    hosts: set[str | None] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped without Debian's chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("Debian's package chromium is not installed")
    expect.set_options(timeout=LIMIT_MS)  # five seconds are too short for a busy machine
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright, Path(executable))
        yield browser
        browser.close()


@contextmanager
def watched_page(browser: Browser, base_url: str, **options: Any) -> Iterator[Watched]:
    """A page of a context of its own.

    Args:
        browser: From `chromium`.
        base_url: Address of the backend.
        **options: As for `Browser.new_context`.
    """
    options = {"viewport": {"width": 1440, "height": 1000}} | options
    with browser.new_context(base_url=base_url, **options) as context:
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        watched = Watched(page)
        page.on("request", lambda request: _note(watched, request.url))
        page.on("pageerror", lambda error: watched.problems.append(str(error)))
        page.on("dialog", lambda dialog: (watched.problems.append(dialog.message), dialog.dismiss()))
        page.on(
            "console",
            lambda line: (
                watched.problems.append(line.text) if "Content Security Policy" in line.text else None
            ),
        )
        yield watched


def flaws(page: Page) -> list[str]:
    """What is wrong with a page as it is now, in light and dark, on a wide and a narrow window.

    Returns:
        What axe-core calls serious or critical, and where the page is wider than its window.
    """
    from axe_playwright_python.sync_playwright import Axe  # only these tests need it

    page.evaluate(Axe().axe_script)
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{page.url} is wider than {width} px")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for violation in page.evaluate(RUN_AXE):
                if violation["impact"] in ("serious", "critical"):
                    where = [
                        f"{node['html'][:200]} {node['failureSummary']}" for node in violation["nodes"][:3]
                    ]
                    found.append(f"{page.url} at {width} px, {scheme}: {violation['help']}: {where}")
    return found


def _note(watched: Watched, url: str) -> None:
    if not url.startswith(("blob:", "data:")):
        watched.hosts.add(urlsplit(url).hostname)

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


def _note(watched: Watched, url: str) -> None:
    if not url.startswith(("blob:", "data:")):
        watched.hosts.add(urlsplit(url).hostname)

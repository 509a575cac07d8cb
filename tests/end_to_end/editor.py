"""Drives the labeling editor of Label Studio in a real browser, the way an annotator does.

`Editor` is a page object over Playwright: each method is one thing an annotator does, and returns once the
editor is through with it. It belongs to a label config with the controls `brush`, `click` and
`refcut_role`. Positions are fractions (0 to 1) of the natural image, x to the right and y down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Playwright, Response, ViewportSize, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

CLICK_CONTROL = "click"
BOX_CONTROL = "box"
VIEWPORT: ViewportSize = {"width": 1400, "height": 1000}  # labels and roles fit below a landscape photograph
ACTION_LIMIT_MS = 120_000  # on busy cores signing in alone has taken half a minute
REQUEST_LIMIT_MS = 30_000  # the editor sends a click at once or never

_IN_A_CONTAINER = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]  # run by root
_NO_CALLS_OUT = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


class EditorError(RuntimeError):
    """An annotator could not have done this in the present state of the editor."""


@dataclass(frozen=True)
class Region:
    """One row of the region list; `kind` is brushregion or keypointregion."""

    label: str
    kind: str
    selected: bool


def launch_chromium(playwright: Playwright, executable: Path) -> Browser:
    """Start the Chromium of the system, headless and without any calls of its own."""
    path = str(executable)
    return playwright.chromium.launch(
        executable_path=path, headless=True, args=_IN_A_CONTAINER + _NO_CALLS_OUT
    )


class Editor:
    """The quick view of one task. Open the page with `viewport=VIEWPORT`."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url.rstrip("/")
        self._label: str | None = None
        page.set_default_timeout(ACTION_LIMIT_MS)

    def sign_in(self, user: str, password: str) -> None:
        """Log in; the session lasts as long as the browser context."""
        self.page.goto(f"{self.base_url}/user/login/")
        self.page.fill("input[name=email]", user)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/login" not in url)

    def open_task(self, project_id: int, task_id: int) -> None:
        """Show a task with its whole image in view; nothing of an earlier task stays selected."""
        self._label = None
        self.page.goto(f"{self.base_url}/projects/{project_id}/data?task={task_id}")
        shown = self.page.locator(".lsf-current-task__task-id")
        expect(shown).to_have_text(str(task_id), timeout=ACTION_LIMIT_MS)
        # While it opens, the side panels resize the image, which often leaves it zoomed in by a few per
        # cent with its borders cut off. Zoom to fit undoes that, but only once nothing moves any more.
        self.page.wait_for_function(_IMAGE_AT_REST)
        self._press("Shift+Digit1")
        self.page.wait_for_function("() => Htx.annotationStore.selected.names.get('image').zoomScale === 1")

    def enable_auto_annotation(self) -> None:
        """Switch Auto-Annotation on, and Auto-Accept off; the browser context remembers both for later tasks."""
        # The real checkbox is invisible under a drawn switch, hence force.
        self.page.get_by_test_id("bottombar-auto-annotation-toggle").check(force=True)
        self._smart_tool().first.wait_for()
        self.auto_accept(on=False)

    def auto_accept(self, on: bool) -> None:
        """Switch Auto-Accept Suggestions: every answer becomes a region at once and its dot goes.

        Can be switched only while nothing is suggested; the browser context remembers it for later tasks.
        """
        switch = self.page.get_by_test_id("bottombar-auto-accept-toggle")
        if switch.is_checked() != on:
            switch.click(force=True)  # the real checkbox is invisible, and follows a moment later
            expect(switch).to_be_checked(checked=on, timeout=ACTION_LIMIT_MS)

    def keep_label_selected(self, on: bool = True) -> None:
        """Set "Keep label selected after creating a region", which Label Studio ships switched off.

        Without it every click takes the label away, and the annotator has to choose it anew for the next. The browser
        context remembers it for later tasks.
        """
        self.page.get_by_test_id("bottombar-settings-button").click()
        setting = self.page.locator("label.lsf-settings__field", has_text="Keep label selected")
        checkbox = setting.locator("input")  # invisible, and follows a moment later
        for _ in range(5):
            if checkbox.is_checked() == on:
                break
            setting.click()
            with contextlib.suppress(AssertionError):  # a click is lost while the dialog still moves
                expect(checkbox).to_be_checked(checked=on, timeout=ACTION_LIMIT_MS / 10)
        expect(checkbox).to_be_checked(checked=on)
        self.page.locator(".lsf-settings-modal .ant-modal-close").click()
        self.page.locator(".lsf-settings-modal").wait_for(state="hidden")

    def choose_label(self, name: str) -> None:
        """Take up this label of the click control, then the smart tool."""
        self._press("Escape")  # with a region selected, the hotkey would go to that region
        if not self._is_chosen(name):
            # By hotkey, because a mouse click on a label below the fold would scroll the image away.
            self._press(self._label_chip(name).locator(".lsf-label__hotkey").inner_text())
            expect(self._label_chip(name)).to_contain_class("lsf-label_selected")
        self._label = name
        # The tool comes after the label: choosing a label of another control puts the tool down.
        self._take_tool("key-point-tool")

    def click_image(
        self, x_fraction: float, y_fraction: float, negative: bool = False, on_mask: bool = False
    ) -> dict[str, Any]:
        """Click with the smart tool; returns the answer of Label Studio once the editor shows it.

        `negative` holds Alt. `on_mask` holds Ctrl: a plain click on an accepted mask selects that mask
        instead, and no request is sent.
        """
        if self._label is None:
            raise EditorError("choose a label first")
        if not self._is_chosen(self._label):
            self.choose_label(self._label)
        x, y = self.page_point(x_fraction, y_fraction)
        try:
            with (
                self.page.expect_request("**/interactive-annotating*", timeout=REQUEST_LIMIT_MS) as request,
                self._holding(Alt=negative, Control=on_mask),
            ):
                self.page.mouse.click(x, y)
        except PlaywrightTimeout as error:
            raise EditorError("the click sent no request: it met a dot or an accepted mask") from error
        response = request.value.response()  # unlimited here: Label Studio gives up on a backend after 100 s
        self.page.wait_for_function("() => !Htx.awaitingSuggestions")
        if response is None or not response.ok:
            raise EditorError(f"Label Studio refused the click: {response and response.text()[:500]}")
        answer: dict[str, Any] = response.json()
        return answer

    def draw_box(
        self, label: str, top_left: tuple[float, float], bottom_right: tuple[float, float]
    ) -> dict[str, Any]:
        """Drag a box with the smart rectangle tool under a label of the control `box`; returns the answer.

        Corners are (x, y). For a config that has the smart keypoint and the smart rectangle tool: Label Studio then
        shows one Auto-Detect button, which goes from one to the other.
        """
        self._press("Escape")
        chip = self._label_chip(label, BOX_CONTROL)
        self._press(chip.locator(".lsf-label__hotkey").inner_text())
        expect(chip).to_contain_class("lsf-label_selected")
        self._take_tool("rectangle-tool")
        start, end = self.page_point(*top_left), self.page_point(*bottom_right)
        with self.page.expect_response("**/interactive-annotating*", timeout=ACTION_LIMIT_MS) as response:
            self.page.mouse.move(*start)
            self.page.mouse.down()
            self.page.mouse.move(*end, steps=5)
            self.page.mouse.up()
        self.page.wait_for_function("() => !Htx.awaitingSuggestions")
        answer: dict[str, Any] = response.value.json()
        return answer

    def page_point(self, x_fraction: float, y_fraction: float) -> tuple[float, float]:
        """Bring this point of the image into view; returns where it is on the page, in CSS pixels."""
        for block in ("nearest", "start", "end"):
            self.page.locator(".konvajs-content").evaluate("(e, block) => e.scrollIntoView({block})", block)
            # The hidden <img> lies exactly under the drawing and follows its zoom, the stage does not.
            image = self.page.locator(".lsf-image > img").bounding_box()
            if image is None:
                raise EditorError("no image is open")
            x = image["x"] + x_fraction * image["width"]
            y = image["y"] + y_fraction * image["height"]
            if self.page.evaluate(_IS_STAGE, [x, y]):
                return x, y
        raise EditorError(f"({x_fraction}, {y_fraction}) is covered or outside the visible part of the image")

    def accept_suggestion(self, label_in_hand: bool = False) -> None:
        """Accept with the tick of the bottom bar: masks become regions, the dots go.

        With `label_in_hand` the label stays chosen, and Label Studio stores it with every mask as a
        second label of the click control, whichever label that is.
        """
        if not label_in_hand:
            self._press("Escape")
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        self.page.wait_for_function("() => Htx.annotationStore.selected.suggestions.size === 0")

    def submit(self) -> dict[str, Any]:
        """Submit a new annotation or update an existing one; returns it as Label Studio stored it."""
        with self.page.expect_response(_stores_annotation) as response:
            self.page.locator("button[name=submit]").click()
        stored: dict[str, Any] = response.value.json()
        # Until then the editor still shows the annotation as it was, without its new id.
        expect(self.page.get_by_test_id("bottombar-update-button")).to_be_disabled(timeout=ACTION_LIMIT_MS)
        return stored

    def leave(self) -> None:
        """Leave the task; what was not submitted stays behind as a draft."""
        self.page.goto(f"{self.base_url}/projects/")

    def regions(self) -> list[Region]:
        """The region list as it stands; suggestions are not in it."""
        return [
            Region(
                label=row.locator(".lsf-outliner-item__title").inner_text().strip(),
                kind="keypointregion" if self._has_class(row, _KEYPOINT_ROW) else "brushregion",
                selected=self._has_class(row, "lsf-tree-treenode-selected"),
            )
            for row in self._region_rows().all()
        ]

    def select_region(self, index: int) -> None:
        """Select a region by its place in `regions()`; its role can be set then."""
        self._region_rows().nth(index).locator(".lsf-outliner-item__title").click()
        self.page.locator(".lsf-choices:not(.lsf-choices_hidden)").wait_for()

    def role_is_in_reach(self, role: str) -> bool:
        """Whether a click in the middle of a role's button would meet it, without scrolling."""
        button = self.page.locator(f'.lsf-choices input[type=radio][name="{role}"]')
        return bool(button.evaluate(_MEETS_ITSELF))

    def set_role(self, role: str) -> None:
        """Give the selected mask a role: Reference or Negative reference. Kept by `submit()`."""
        button = self.page.locator(f'.lsf-choices input[type=radio][name="{role}"]')
        button.check(force=True)
        expect(button).to_be_checked()

    def screenshot(self, path: Path) -> None:
        """Save what the annotator sees now."""
        self.page.wait_for_timeout(400)  # a mask is decoded after its region already exists
        self.page.screenshot(path=path)

    def _press(self, keys: str) -> None:
        # Label Studio ignores hotkeys while any input has the focus, even the Auto-Annotation switch.
        self.page.evaluate("() => document.activeElement?.blur()")
        self.page.keyboard.press(keys)

    def _take_tool(self, name: str) -> None:
        """Take up a smart tool. With several of them there is one Auto-Detect button, which goes to the next tool."""
        button = self._smart_tool().first
        named = self.page.get_by_label(name, exact=True)
        tool = self._smart_tool().and_(named) if self._smart_tool().count() > 1 else button
        for _ in range(self._smart_tool().count() + 1):
            if self._has_class(tool, "lsf-tool_active"):
                return
            button.click()
            self.page.wait_for_timeout(200)  # the tools follow a moment later
        raise EditorError(f"Auto-Detect never comes to {name}")

    def _smart_tool(self) -> Locator:
        return self.page.locator(".lsf-tool_smart")

    def _region_rows(self) -> Locator:
        return self.page.locator(".lsf-tree__node[role=treeitem]").filter(
            has=self.page.locator(".lsf-outliner-item")
        )

    def _label_chip(self, name: str, control: str = CLICK_CONTROL) -> Locator:
        # Both controls list the same labels, and the page does not say which row is whose: the rows
        # follow the order of the controls in the config.
        row: int = self.page.evaluate(_ROW_OF_CONTROL, control)
        chips = self.page.locator(".lsf-labels").nth(row).locator(".lsf-label")
        return chips.filter(has=self.page.get_by_text(name, exact=True))

    def _is_chosen(self, name: str) -> bool:
        return self._has_class(self._label_chip(name), "lsf-label_selected")

    @staticmethod
    def _has_class(locator: Locator, name: str) -> bool:
        return name in (locator.get_attribute("class") or "").split()

    @contextlib.contextmanager
    def _holding(self, **keys: bool) -> Iterator[None]:
        with contextlib.ExitStack() as release:
            for key in (key for key, down in keys.items() if down):
                self.page.keyboard.down(key)
                release.callback(self.page.keyboard.up, key)
            yield


_KEYPOINT_ROW = "lsf-tree__node_type_keypointregion"
_IS_STAGE = "([x, y]) => !!document.elementFromPoint(x, y)?.closest('.konvajs-content')"
_MEETS_ITSELF = """(button) => {
    const box = button.getBoundingClientRect();
    const met = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return met === button || !!met?.contains(button) && !!met.closest('.lsf-choices');
}"""
_IMAGE_AT_REST = """() => {
    const image = document.querySelector('.lsf-image > img');  // may still go and come back
    const place = image?.naturalWidth ? JSON.stringify(image.getBoundingClientRect()) : performance.now();
    if (window.lastPlace !== place) [window.lastPlace, window.atRestSince] = [place, performance.now()];
    return performance.now() - window.atRestSince > 1000;
}"""
_ROW_OF_CONTROL = """(name) => [...Htx.annotationStore.selected.names]
    .filter(([, control]) => control.type.endsWith('labels')).findIndex(([n]) => n === name)"""


def _stores_annotation(response: Response) -> bool:
    stores = response.request.method in ("POST", "PATCH") and "/annotations" in response.url
    return stores and "/drafts" not in response.url

"""An engineer's day: a web server with a password, connected in the browser, checked, and started again.

The web server is a second one beside the demo's, on the demo's Redis, workers and database. Each test continues where the
one before it ended.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import FloatRect, Page, expect

from refcut_backend.cli.demo import DEMO_PROJECTS
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from tests.end_to_end.commands import refcut
from tests.end_to_end.editor import ACTION_LIMIT_MS, VIEWPORT
from tests.end_to_end.pictures import picture
from tests.end_to_end.world import START_LIMIT_S, STOP_LIMIT_S, World
from tests.support.recorded import LABEL_CONFIG, REPOSITORY
from tests.support.running_backend import free_port

CARS = DEMO_PROJECTS[0]
DIALOG: FloatRect = {"x": 310, "y": 105, "width": 780, "height": 770}
USER, PASSWORD, SECRET = "team", "a long password", "a long secret"


class WebServer:
    """`refcut serve` with a password.

    Attributes:
        environment: Its settings, for commands as well.
        url: Its address.
    """

    def __init__(self, world: World) -> None:
        state, port = world.folder / "refcut", free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "REFCUT_STATE_DIR": str(state),
            "REFCUT_REDIS_URL": (state / "redis-url").read_text().strip(),
            "REFCUT_PORT": str(port),
            "REFCUT_BASIC_AUTH_USER": USER,
            "REFCUT_BASIC_AUTH_PASSWORD": PASSWORD,
            "REFCUT_WEBHOOK_SECRET": SECRET,
        }
        self._log = world.folder / "serve.log"
        self.start()

    def start(self) -> None:
        """Start it and wait until a worker can answer."""
        command = [sys.executable, "-m", "refcut_backend", "serve"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | self.environment, cwd=REPOSITORY, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self._is_ready():
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Stop it as a service manager does."""
        self._process.terminate()
        assert self._process.wait(STOP_LIMIT_S) == 0


@dataclass
class Day:
    """What the engineer works with.

    Attributes:
        world: The running demo.
        server: The web server with a password.
        page: A page of Label Studio, signed in.
        backend_page: A page of the web server, of a browser that has not logged in.
        project: Number of the project that is made in the browser.
    """

    world: World
    server: WebServer
    page: Page
    backend_page: Page
    project: int = 0


@pytest.fixture(scope="module")
def day(world: World) -> Iterator[Day]:
    browser = world.editor.page.context.browser
    assert browser is not None
    with ExitStack() as stack:
        server = WebServer(world)
        stack.callback(server.stop)
        context = stack.enter_context(closing(browser.new_context(viewport=VIEWPORT)))
        backend_page = context.new_page()
        backend_page.set_default_timeout(ACTION_LIMIT_MS)
        yield Day(world, server, world.editor.page, backend_page)
        world.editor.leave()


def test_the_doctor_finds_nothing_wrong_with_the_demo(day: Day) -> None:
    output = refcut(day.world, "doctor")
    numbers = LabelStudioProject.titled(day.world.label_studio, day.world.token)
    for demo in DEMO_PROJECTS:
        assert re.search(rf"project {numbers[demo.title]}\b.* the image of task", output), output
    assert "a webhook that Label Studio sent arrived here" in output


def test_a_project_made_in_the_browser_is_connected_with_the_password(day: Day) -> None:
    page = day.page
    page.goto(f"{day.world.label_studio}/projects")
    # Photographs that are chosen before Label Studio has made its draft of the project end in an error dialog.
    with page.expect_response(
        lambda answer: answer.request.method == "POST" and "/api/projects" in answer.url
    ):
        page.get_by_role("button", name="Create").first.click()
    page.locator("#project_name").fill("Street")
    page.get_by_text("Data Import", exact=True).click()
    photographs = CARS.photograph_paths()[:2]
    page.locator("input[type=file]").set_input_files([str(path) for path in photographs])
    for path in photographs:
        page.get_by_text(path.name).first.wait_for()
    page.get_by_text("Labeling Setup", exact=True).click()
    page.get_by_role("button", name="Create custom template").click()
    page.get_by_text("Code", exact=True).click()
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(LABEL_CONFIG)
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"/projects/\d+/data"))
    (number,) = re.findall(r"/projects/(\d+)/", page.url)
    page.goto(f"{day.world.label_studio}/projects/{number}/settings/ml")
    page.get_by_role("button", name="Add machine learning model").first.click()
    page.locator("input[name=title]").fill("RefCut")
    page.locator("input[name=url]").fill(day.server.url)
    page.get_by_text("No Authentication").first.click()
    page.get_by_text("Basic Authentication").last.click()
    page.locator("input[name=basic_auth_user]").fill(USER)
    page.locator("input[name=basic_auth_pass]").fill(PASSWORD)
    page.locator("input[name=is_interactive]").check(force=True)
    picture(page, "connect-model", clip=DIALOG)
    page.get_by_role("button", name="Save machine learning form").click()
    expect(page.get_by_text("Connected", exact=True)).to_be_visible(timeout=ACTION_LIMIT_MS)
    day.project = int(number)


def test_with_the_secret_in_its_webhook_the_doctor_finds_nothing_wrong(day: Day) -> None:
    number = str(day.project)
    headers = {"Authorization": f"Token {day.world.token}"}
    with httpx.Client(base_url=day.world.label_studio, headers=headers, trust_env=False) as client:
        hooks = client.get("/api/webhooks/", params={"project": number}).raise_for_status().json()
        (hook,) = [hook for hook in hooks if hook["url"] == f"{day.server.url}/webhook"]
        headers = {"headers": {"X-RefCut-Webhook-Secret": SECRET}}
        client.patch(f"/api/webhooks/{hook['id']}/", json=headers).raise_for_status()
    output = refcut(day.world, "doctor", "--project", number, environment=day.server.environment)
    assert "a webhook that Label Studio sent arrived here" in output
    assert not [secret for secret in (PASSWORD, SECRET) if secret in output]


def test_the_status_page_asks_for_the_password_and_shows_the_project(day: Day) -> None:
    page = day.backend_page
    page.goto(f"{day.server.url}/status")
    _log_in(page, "a wrong password")
    expect(page.locator("#message")).to_have_class(re.compile("problem"))
    _log_in(page, PASSWORD)
    expect(page.get_by_role("heading", name="Status")).to_be_visible()
    expect(page.locator("#workers tbody")).to_contain_text("clicks")
    expect(page.locator("#projects")).to_contain_text(f"Project {day.project}")
    output = refcut(day.world, "status", environment=day.server.environment)
    assert re.search(rf"^│ {day.project} ", output, re.MULTILINE)


def test_a_restart_keeps_projects_and_references(day: Day) -> None:
    with closing(LabelStudioProject(day.world.label_studio, day.project, day.world.token)) as project:
        project.annotate(project.task_ids()[0], CARS.reference_regions())
    cards = day.backend_page.locator(".reference-card")
    address = f"{day.server.url}/projects/{day.project}/references"
    deadline = time.monotonic() + ACTION_LIMIT_MS / 1000
    while day.backend_page.goto(address) and cards.count() < len(CARS.label_parts):
        assert time.monotonic() < deadline, "the backend has not heard of the references"
        time.sleep(0.2)
    day.server.stop()
    day.server.start()
    day.backend_page.goto(address)
    if day.backend_page.locator("#login").count():
        _log_in(day.backend_page, PASSWORD)
    expect(cards).to_have_count(len(CARS.label_parts))
    for card in cards.all():
        expect(card).to_contain_text("In use")


def _log_in(page: Page, password: str) -> None:
    page.locator("input[name=user]").fill(USER)
    page.locator("input[name=password]").fill(password)
    page.locator("#login button").click()

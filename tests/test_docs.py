"""What the Markdown pages say can be followed: links lead somewhere, named files exist, example and notebook run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recorded import REPOSITORY

PAGES = sorted(
    REPOSITORY / name
    for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=REPOSITORY, text=True).split()
)
TREE = ("refcut_backend", "model", "benchmarks", "tests", "docs", "docker", "label_config")


def without_code_blocks(page: Path) -> str:
    """The page's text."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_code_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_leads_somewhere(page: Path):
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", without_code_blocks(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_file_of_the_code_that_a_page_names_exists(page: Path):
    text = page.read_text()
    if page.name == "CHANGELOG.md":
        text = text.split("\n## ")[-1]
    for path in set(
        re.findall(rf"\b(?:{'|'.join(TREE)})/[\w/]+\.(?:py|yaml|yml|xml|md|safetensors)\b", text)
    ):
        assert (REPOSITORY / path).exists() or (REPOSITORY / "tests" / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_that_a_page_names_exists(page: Path):
    text = page.read_text()
    for name in set(re.findall(r"python -m benchmarks\.(\w+)", text)):
        assert (REPOSITORY / "benchmarks" / f"{name}.py").exists(), name
    for name in set(re.findall(r"-m model ([a-z][\w-]*)", text)):
        assert (REPOSITORY / "model" / "cli" / f"{name.replace('-', '_')}.py").exists(), name
    assert not re.search(r"-m model\.\w", text), "`python -m model COMMAND` is the one command"


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:")[1]
    listed = set(re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE))
    written = {
        f"reference/{name}.md" for name in ("commands", "reasons", "label-configs", "library", "predictor")
    }
    assert {str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").glob("*.md")} <= listed
    assert {path for path in listed - written if not (REPOSITORY / path).exists()} == set()


@pytest.mark.slow
def test_the_example_of_the_model_page_runs(monkeypatch: pytest.MonkeyPatch):
    (example,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "model.md").read_text(), re.DOTALL)
    monkeypatch.chdir(REPOSITORY)
    names: dict[str, object] = {}
    exec(example, names)
    mask_hw = names["mask_hw"]
    assert isinstance(mask_hw, np.ndarray)
    assert mask_hw.dtype == np.bool_
    assert 0.01 < mask_hw.mean() < 0.1


NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "predictor.ipynb"


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_notebook_of_the_predictor_runs_and_its_reference_narrows_the_click_to_the_wheel(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict[str, Any] = {}
    for cell in code_cells():
        exec("".join(cell["source"]), names)
    alone, with_reference = names["alone"].mask_hw, names["with_reference"].mask_hw
    click = names["click"]
    assert alone[click.row, click.col]
    assert with_reference[click.row, click.col]
    assert 0.01 < with_reference.mean() < 0.1
    taken_away = names["clicks"][-1]
    assert alone[taken_away.row, taken_away.col]
    assert not names["corrected"].mask_hw[taken_away.row, taken_away.col]


def test_the_notebook_is_kept_without_its_outputs():
    assert [(cell["outputs"], cell["execution_count"]) for cell in code_cells()] == [([], None)] * len(
        code_cells()
    )

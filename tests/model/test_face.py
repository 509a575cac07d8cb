"""`import model`: the names that a user of the library finds, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import model


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh process has loaded after a statement."""
    script = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize("name", model.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    found = getattr(model, name)
    assert found.__doc__
    assert name in dir(model)


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(model.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(model.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clicks'"):
        model.Clicks  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import model",
        "from model import Box, Click, ModelError, NetworkConfig, SHIPPED_DIR",
        "import model.checkpoints.version_folder",
        "import model.cli.main",
    ],
)
def test_what_the_web_process_imports_does_not_import_torch(statement: str) -> None:
    assert modules_after(statement).isdisjoint({"torch", "timm", "openvino", "cv2"})

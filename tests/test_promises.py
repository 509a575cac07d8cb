"""Every promise in docs/promises.md has the test that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.recorded import REPOSITORY

PROMISES = re.findall(r"\| `([^`]+)::([^`]+)` \|\n", (REPOSITORY / "docs" / "promises.md").read_text())


def test_the_list_is_read():
    assert len(PROMISES) > 50


@pytest.mark.parametrize(("path", "name"), PROMISES)
def test_a_promise_has_the_test_that_it_names(path: str, name: str):
    file = Path(path.replace("backend/", "refcut_backend/", 1) if path.startswith("backend/") else path)
    tree = ast.parse((REPOSITORY / "tests" / file).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]

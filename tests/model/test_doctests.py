"""The examples in the docstrings of `model` run, and every public class has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import model

MODULES = ["model", *(found.name for found in pkgutil.walk_packages(model.__path__, "model."))]


def examples_of(name: str) -> list[doctest.DocTest]:
    """Docstrings of a module's own objects that hold an example."""
    return [found for found in doctest.DocTestFinder().find(importlib.import_module(name)) if found.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "model.__main__" and examples_of(name)])
def test_the_examples_of_a_module_run(name: str) -> None:
    runner = doctest.DocTestRunner()
    for example in examples_of(name):
        runner.run(example)
    results = runner.summarize(verbose=False)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    "name", [name for name in model.__all__ if inspect.isclass(getattr(model, name))] + ["load_network"]
)
def test_every_public_class_has_an_example(name: str) -> None:
    public = getattr(model, name)
    assert [found for found in doctest.DocTestFinder(recurse=False).find(public, name) if found.examples]

"""docs/architecture.md names every module of the code, and its import rules are those of the contract.

`python -m tests.test_architecture` rewrites the import rules after a change of `[tool.importlinter]` in pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from textwrap import fill
from typing import Any

from tests.support.recorded import REPOSITORY

PAGE = REPOSITORY / "docs" / "architecture.md"
BEGIN = "<!-- Generated from pyproject.toml by `python -m tests.test_architecture`; do not edit. -->\n"
END = "<!-- End of the generated part. -->\n"
LINE = 122
PACKAGES = ("refcut_backend", "model")
Contract = dict[str, Any]


def contracts() -> list[Contract]:
    """The import contracts of pyproject.toml, in their order."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found: list[Contract] = settings["tool"]["importlinter"]["contracts"]
    return found


def import_rules() -> str:
    """Markdown: one table per layers contract, and a list of all that is forbidden."""
    layered = [layer_table(contract) for contract in contracts() if contract["type"] == "layers"]
    return "\n".join([*layered, forbidden_list([c for c in contracts() if c["type"] == "forbidden"])])


def layer_table(contract: Contract) -> str:
    """The packages of a container, the top layer first."""
    (container,) = contract["containers"]
    layers = [re.split(r"\s*[|:]\s*", layer.strip()) for layer in contract["layers"]]
    rows = [f"**{contract['name']}.**\n", f"| row | in `{container}/` | may import |", "| ---: | --- | --- |"]
    for number, layer in enumerate(layers, 1):
        below = {0: "none of these", 1: f"row {number + 1}"}
        reach = below.get(len(layers) - number, f"rows {number + 1} to {len(layers)}")
        rows.append(f"| {number} | {code(layer)} | {reach} |")
    return "\n".join(rows) + "\n"


def forbidden_list(forbidden: list[Contract]) -> str:
    """What some packages never import: also not through other modules, unless the contract allows that."""
    rules = ["**Imports that are forbidden.** Names without a package are in `refcut_backend/`.\n"]
    for contract in forbidden:
        how = "directly" if contract.get("allow_indirect_imports") else "directly or indirectly"
        allowed = sorted({line.split(" -> ")[0] for line in contract.get("ignore_imports", ())})
        rule = (
            f"- {contract['name']}: {code(contract['source_modules'])} may not import"
            f" {code(contract['forbidden_modules'])}, {how}."
        )
        except_for = f" Except: {code(allowed)}." if allowed else ""
        rules.append(fill(rule + except_for, LINE, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(rules) + "\n"


def code(names: Iterable[str]) -> str:
    """Names as code, comma separated."""
    return ", ".join(f"`{name.removeprefix('refcut_backend.')}`" for name in names)


def with_import_rules(page: str) -> str:
    """The page with its generated part replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{import_rules()}\n{END}{after}"


def tree() -> list[str]:
    """Every path that the tree names, relative to the repository; folders end with "/"."""
    (block,) = re.findall(r"# The tree\n.*?```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    paths: list[str] = []
    parents: list[str] = []
    for line in filter(str.strip, block.splitlines()):
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], name]
        paths.append("".join(parents))
    return paths


def test_the_import_rules_are_those_of_the_contract():
    page = PAGE.read_text()
    assert page == with_import_rules(page), "run `python -m tests.test_architecture`"


def test_every_path_in_the_tree_exists():
    missing = [path for path in tree() if not (REPOSITORY / path).exists()]
    assert missing == []


def test_every_module_is_in_the_tree():
    named = set(tree())
    modules = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert sorted(modules - named) == []


def test_every_path_in_the_text_exists():
    """Paths are written from the repository's root, or from `refcut_backend/` where the first folder is one of its."""
    text = re.sub(r"```.*?```", "", PAGE.read_text(), flags=re.DOTALL)
    paths = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", text))
    assert len(paths) > 20
    roots = (REPOSITORY, REPOSITORY / "refcut_backend")
    assert [path for path in sorted(paths) if not any((root / path).exists() for root in roots)] == []


if __name__ == "__main__":
    PAGE.write_text(with_import_rules(PAGE.read_text()))

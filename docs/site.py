"""Lays out the source of the documentation site: the Markdown pages where they lie, and pages written from the code.

`make docs` runs it with the environment of the project, then Zensical with its own. Links between pages are relative, so
the layout is that of the repository; `mkdocs.yml` has the navigation.

    python docs/site.py build/docs
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
import typer.main
from typer.core import TyperGroup

import model
from refcut_backend.cli.main import app
from refcut_backend.errors import reasons_table

REPOSITORY = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "LICENSE",
    "NOTICE",
    "model/MODEL_CARD.md",
    "benchmarks/README.md",
    "docker/helm/values.yaml",
)
"""Pages of the site outside docs/, and files that they link to."""


def commands(group: TyperGroup, name: str) -> Iterator[str]:
    """The help of each command of a group, as Markdown."""
    for command_name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        full_name = f"{name} {command_name}"
        if isinstance(command, TyperGroup):
            yield from commands(command, full_name)
            continue
        yield f"## `{full_name}`\n\n{command.help or ''}\n"
        context = typer.Context(command, info_name=full_name)
        rows = [record for option in command.params if (record := option.get_help_record(context))]
        if rows:
            yield "| option | meaning |\n| --- | --- |"
            yield from (f"| `{cell(names)}` | {cell(text)} |" for names, text in rows)
            yield ""


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def commands_page() -> str:
    """All commands of `refcut` with their options."""
    group = typer.main.get_group(app)
    start = "# Commands\n\n`refcut COMMAND`; `python -m model --help` lists the commands of the library.\n"
    return "\n".join([start, *commands(group, "refcut")])


def label_configs_page() -> str:
    """The label configs that ship, as they are."""
    start = (
        "# Label configs\n\nTo paste under Settings > Labeling Interface > Code. What their controls do is in "
        "[Connecting Label Studio](../docs/label-studio.md#the-label-config).\n"
    )
    files = sorted((REPOSITORY / "label_config").glob("*.xml"))
    return "\n".join(
        [start, *(f"## {path.name}\n\n```xml\n{path.read_text().strip()}\n```\n" for path in files)]
    )


def reasons_page() -> str:
    """All reason codes. The table is written for a page in docs/."""
    table = re.sub(r"\]\((\w[\w-]*\.md)", r"](../docs/\1", reasons_table())
    return f"# Reason codes\n\nWhy a click has no mask, and what to do.\n\n{table}"


def library_page() -> str:
    """The public names of the library; mkdocstrings fills in their docstrings."""
    start = "# The library\n\n`from model import ...`; [The model](../docs/model.md#from-python) shows them in use.\n"
    entries = [f"::: model.{name}\n" for name in sorted(model.__all__)]
    return "\n".join([start, *entries])


def notebook_page(path: Path) -> str:
    """A notebook's text and code; its pictures appear when it is run."""
    cells = json.loads(path.read_text())["cells"]
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in sources)


def lay_out(target: Path) -> None:
    """Write the source of the site.

    Args:
        target: Folder to write; what is in it is deleted.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        REPOSITORY / "docs", target / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    for name in PAGES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target / name)
    home = target / "README.md"
    home.write_text(home.read_text().replace("](label_config)", "](reference/label-configs.md)"))
    pages = {
        "commands": commands_page(),
        "reasons": reasons_page(),
        "label-configs": label_configs_page(),
        "library": library_page(),
        "predictor": notebook_page(REPOSITORY / "docs" / "notebooks" / "predictor.ipynb"),
    }
    (target / "reference").mkdir()
    for name, text in pages.items():
        (target / "reference" / f"{name}.md").write_text(text)


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))

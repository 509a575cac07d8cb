"""The settings as a Markdown table: what `refcut settings` prints and `docs/settings.md` holds."""

from __future__ import annotations

from pathlib import Path

from model.checkpoints.version_folder import SHIPPED_DIR
from refcut_backend.settings import Settings


def settings_table() -> str:
    """One row a setting: variable, default, meaning."""
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `REFCUT_{name.upper()}` | {_shown(field.default)} | {field.description} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    if default is None or default == "":
        return "-"
    if isinstance(default, Path) and default == SHIPPED_DIR:
        return "the model that ships"
    return f"`{default}`"

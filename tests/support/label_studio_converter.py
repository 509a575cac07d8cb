"""Runs Label Studio's exports without a server. A script for the Python of Label Studio's own environment.

A line of stdin: {"config": XML, "result": regions, "format": name}.
The line of stdout that answers it: {"failed": text or null, "files": {path: text or null}}.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer every line of stdin."""
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the converter prints is no answer
    for line in sys.stdin:
        print(json.dumps(convert(json.loads(line))), file=answers, flush=True)


def convert(asked: dict[str, Any]) -> dict[str, Any]:
    """Convert a task with one annotation."""
    from label_studio_sdk.converter import Converter

    annotation = {
        "id": 1,
        "result": asked["result"],
        "completed_by": 1,
        "was_cancelled": False,
        "created_at": "2026",
    }
    task = {"id": 1, "data": {"image": "/data/upload/1/car.png"}, "annotations": [annotation]}
    with tempfile.TemporaryDirectory() as folder:
        tasks, out = Path(folder) / "tasks.json", Path(folder) / "out"
        tasks.write_text(json.dumps([task]))
        out.mkdir()
        failed = None
        try:
            converter = Converter(asked["config"], folder, download_resources=False)
            converter.convert(str(tasks), str(out), asked["format"], is_dir=False)
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        files = {
            str(path.relative_to(out)): path.read_text() if path.suffix in (".json", ".txt", ".xml") else None
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
    return {"failed": failed, "files": files}


if __name__ == "__main__":
    main()

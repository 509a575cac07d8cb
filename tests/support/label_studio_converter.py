"""Runs one of Label Studio's exports without a server. A script for the Python of Label Studio's own environment.

stdin: {"config": XML, "result": regions, "format": name}.
stdout: {"failed": text or null, "files": {path: text or null}}.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Convert a task with one annotation."""
    from label_studio_sdk.converter import Converter

    logging.disable(logging.CRITICAL)
    asked = json.load(sys.stdin)
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
    json.dump({"failed": failed, "files": files}, sys.stdout)


if __name__ == "__main__":
    main()

"""Our model class behind label-studio-ml's own server.

`python -m tests.support.label_studio_ml_server VERSION PORT FOLDER`: VERSION is 1.0.9 (the real one) or github.
The queue answers at once; everything else is real.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import github_label_studio_ml
from tests.support.fake_wiring import FakeQueue, wiring_on


def main(version: str, port: int, folder: Path) -> None:
    """Serve until killed."""
    if version == "github":
        github_label_studio_ml.install()

    from refcut_backend.api import label_studio_ml

    with wiring_on(folder, FakeQueue()) as wiring:
        label_studio_ml._wiring_of = lambda _process: wiring
        if version == "github":
            app = github_label_studio_ml.init_app(label_studio_ml.RefCutModel)
        else:
            from label_studio_ml.api import init_app

            app = init_app(label_studio_ml.RefCutModel, model_dir=str(folder / "models"))
        app.run(host="127.0.0.1", port=port, threaded=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

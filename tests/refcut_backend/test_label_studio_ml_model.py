from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_path_that_older_set_ups_name_still_has_the_model_class():
    # In a process of its own: the Flask of label-studio-ml 1.0.9 warns when it is imported.
    script = (
        "from refcut_backend import label_studio_ml_model as path; from refcut_backend.api import label_studio_ml; "
        "print(path.RefCutModel is label_studio_ml.RefCutModel)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"

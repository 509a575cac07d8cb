"""The path that label-studio-ml set-ups name in `--script`; the model class is in `api/label_studio_ml.py`."""

from refcut_backend.api.label_studio_ml import RefCutModel as RefCutModel

"""The store and what it serves, as the settings name them."""

from __future__ import annotations

from refcut_backend.model_store.project_versions import StoreVersions
from refcut_backend.model_store.serving_choice import ServingChoice
from refcut_backend.model_store.store import ModelStore
from refcut_backend.settings import Settings


def open_model_store(settings: Settings) -> ModelStore:
    """Raises ModelStoreError."""
    return ModelStore.open(settings.model_store_url, settings.state_dir.resolve() / "model-cache")


def open_project_versions(settings: Settings) -> StoreVersions:
    """Raises ModelStoreError or WeightsError."""
    return StoreVersions(ServingChoice(open_model_store(settings), settings.model_dir))

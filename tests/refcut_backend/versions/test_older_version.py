"""A model store that version 0.1.0 wrote is opened, served and written on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, file_digest
from refcut_backend.versions.serving import ServingChoice
from refcut_backend.versions.store import ModelStore
from tests.support.trained_folders import trained_folder, version_metadata

NAMES = ("s14-0123abcd", "s14-4567cdef")

MANIFEST = """{
  "base_sha256": "%(base)s",
  "format": "refcut-manifest-1",
  "project_id": 7,
  "published_at": "2026-11-2%(day)dT09:30:00.000000+00:00",
  "said": {
    "decision": {"promote": %(promote)s, "reasons": ["first-click IoU .60 against .50"]},
    "images": {"holdout": 8, "train": 40},
    "judgement": {"candidate": {"first_click_iou": 0.6}, "serving": {"first_click_iou": 0.5}},
    "origin": "s14-b81af1d8",
    "parent": "s14-b81af1d8",
    "plan": {"steps": 100},
    "run": "20261120-093000-abcdef",
    "settings": {"time_limit_s": 3600}
  },
  "sizes": {"base.safetensors": %(base_size)d, "version.safetensors": %(version_size)d},
  "version": "%(name)s",
  "version_sha256": "%(version)s"
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two versions of project 7; the second serves, the first served before it."""
    store = tmp_path / "models"
    for day, name in enumerate(NAMES):
        trained = trained_folder(tmp_path / f"run-{day}", seed=day)
        base, version = file_digest(trained / BASE_FILE), file_digest(trained / VERSION_FILE)
        (store / "versions" / name).mkdir(parents=True)
        (store / "bases").mkdir(exist_ok=True)
        shutil.copy(trained / BASE_FILE, store / "bases" / f"{base}.safetensors")
        shutil.copy(trained / VERSION_FILE, store / "versions" / name / VERSION_FILE)
        values = {
            "base": base,
            "version": version,
            "name": name,
            "day": day,
            "promote": "true" if day else "false",
            "base_size": (trained / BASE_FILE).stat().st_size,
            "version_size": (trained / VERSION_FILE).stat().st_size,
        }
        (store / "versions" / name / "manifest.json").write_text(MANIFEST % values)
    (store / "projects" / "7").mkdir(parents=True)
    pointer = json.dumps({"version": NAMES[1], "earlier": [None, NAMES[0]]})
    (store / "projects" / "7" / "current.json").write_text(pointer)
    return store


def test_the_versions_of_an_older_store_are_listed_and_serve(folder, tmp_path):
    store = ModelStore.open(str(folder), tmp_path / "cache")
    assert store.versions(7) == [NAMES[1], NAMES[0]]
    assert store.current(7) == NAMES[1]
    assert (store.local_folder(NAMES[1]) / BASE_FILE).is_file()
    assert ServingChoice(store, trained_folder(tmp_path / "shared")).of(7).version == NAMES[1]
    assert store.rollback(7) == NAMES[0]
    assert store.rollback(7) is None


def test_what_an_older_training_recorded_is_read_by_its_old_keys(folder, tmp_path):
    store = ModelStore.open(str(folder), tmp_path / "cache")
    approved, refused = store.manifest(NAMES[1]), store.manifest(NAMES[0])
    assert (approved.is_approved, refused.is_approved) == (True, False)
    assert approved.metadata["origin"] == approved.metadata["parent"] == "s14-b81af1d8"
    assert approved.metadata["judgement"]["candidate"]["first_click_iou"] == 0.6


def test_a_manifest_is_written_with_the_keys_that_the_older_version_reads(folder, tmp_path):
    store = ModelStore.open(str(folder), tmp_path / "cache")
    name = store.publish(7, trained_folder(tmp_path / "run", seed=5), version_metadata(seed=5))
    older = json.loads((folder / "versions" / NAMES[0] / "manifest.json").read_text())
    newer = json.loads((folder / "versions" / name / "manifest.json").read_text())
    assert newer.keys() == older.keys()
    assert newer["said"] == version_metadata(seed=5)
    store.promote(7, name)
    pointer = json.loads((folder / "projects" / "7" / "current.json").read_text())
    assert pointer == {"version": name, "earlier": [None, *NAMES]}

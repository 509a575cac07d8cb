"""What a manifest says of how a version was made: plain values, whatever became of it."""

from __future__ import annotations

from typing import Any

from model.data.snapshot import Snapshot
from model.finetuning.settings import FineTuneSettings
from model.gate import Decision
from model.judgement import Judgement


def training_record(
    snapshot: Snapshot,
    parent: str,
    settings: FineTuneSettings,
    judgement: Judgement,
    decision: Decision,
    code_version: str,
) -> dict[str, Any]:
    """JSON. parent: name of the version that was gone on from. images: that were learned from."""
    return {
        "parent": parent,
        "snapshot": snapshot.digest,
        "images": len({scene.file_name for scene in snapshot.train}),
        "labels": snapshot.labels,
        "references": [{"label": one.label, "version": one.version} for one in snapshot.references],
        "settings": settings.model_dump(mode="json"),
        "code_version": code_version,
        "judgement": judgement.to_json(),
        "decision": decision.to_json(),
    }

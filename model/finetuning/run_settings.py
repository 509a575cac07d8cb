"""The settings that a run began with, in its folder: a run that learns differently now cannot go on from its checkpoint.

An update in the middle of a training may change the defaults. The checkpoint then belongs to other sizes and other
learning rates, so the run starts again on the same snapshot instead of failing or mixing both.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from model.files import atomic_write
from model.finetuning.config import FineTuneSettings
from model.finetuning.early_stopping import BEST_FILE, BEST_SCORE_FILE
from model.finetuning.time_budget import PLAN_FILE
from model.training.training_state import CHECKPOINT_FILE

SETTINGS_FILE = "settings.json"
MAY_CHANGE = frozenset({"time_limit_s", "checkpoint_minutes", "loader_workers"})
"""Settings that do not change what a step learns."""
log = logging.getLogger(__name__)


def begin_or_resume(run_dir: Path, settings: FineTuneSettings) -> None:
    """Prepare the folder of a run: write its settings, and remove what a run with other settings has left.

    Only the process that writes calls it, before the run reads anything.

    Args:
        run_dir: Existing folder of the run.
        settings: How the run learns.
    """
    learned_with = settings.model_dump(mode="json", exclude=set(MAY_CHANGE))
    if (run_dir / CHECKPOINT_FILE).exists() and _read(run_dir) != learned_with:
        log.warning("%s was begun with other settings, so the training starts again", run_dir)
        # The checkpoint goes last: killed in between, the run starts again the next time.
        for name in (PLAN_FILE, BEST_FILE, BEST_SCORE_FILE, CHECKPOINT_FILE):
            (run_dir / name).unlink(missing_ok=True)
    with atomic_write(run_dir / SETTINGS_FILE) as temporary:
        temporary.write_text(json.dumps(learned_with) + "\n")


def _read(run_dir: Path) -> dict[str, Any] | None:
    """The settings in a folder; None where an earlier version of this program wrote none, or a damaged file."""
    try:
        return dict(json.loads((run_dir / SETTINGS_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None

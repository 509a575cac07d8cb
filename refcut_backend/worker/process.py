"""A worker process: the device, the model that serves, and the engine around it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch

from model.weights import load_network
from refcut_backend.errors import ConfigError
from refcut_backend.jobs.functions import MODEL_QUEUES
from refcut_backend.settings import Settings
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References
from refcut_backend.worker.engine import ClickEngine, Image
from refcut_backend.worker.images import decode_image, fetch_image
from refcut_backend.worker.loop import work

log = logging.getLogger("refcut.worker")


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises ConfigError when a GPU was asked for and there is none."""
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ConfigError(
            "REFCUT_DEVICE asks for CUDA, but torch sees no GPU", hint="use auto or cpu, or mend the driver"
        )
    return torch.device(("cuda" if available else "cpu") if wanted == "auto" else wanted)


def make_engine(settings: Settings) -> ClickEngine:
    """The engine with the settings' model, database and limits, warmed up."""
    device = choose_device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // settings.workers, 1))
    engine = open_database(settings.database)
    projects, references = Projects(engine), References(engine)

    def load_image(project_id: int, task_id: int, address: str) -> Image:
        data = fetch_image(address, task_id, projects.connection(project_id), settings)
        return decode_image(data, settings.image_max_pixels)

    click_engine = ClickEngine(
        load_network(settings.model_dir).to(device), load_image, references.load, settings.cached_images
    )
    click_engine.warm_up()
    log.info("model loaded", extra={"device": str(device), "threads": torch.get_num_threads()})
    return click_engine


def run_worker(settings: Settings, redis_url: str, queues: Sequence[str], name: str) -> int:
    """Works on the settings' model until told to stop. Returns the exit status, as `work` does.

    Raises RefCutError or ModelError when what is needed for these queues is missing.
    """
    needs_model = any(queue in MODEL_QUEUES for queue in queues)
    return work(redis_url, queues, name, (lambda: make_engine(settings)) if needs_model else None)

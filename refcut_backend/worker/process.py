"""A worker process: loads the model once, warms it up, and answers jobs without forking (CUDA would not survive it)."""

from __future__ import annotations

import logging
import os

import torch
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from model.errors import RuntimeChoiceError
from model.predictor_settings import serving_settings
from model.runtime.choose import with_runtime
from model.weights import load_network
from refcut_backend.errors import ConfigError
from refcut_backend.jobs.click_job import CLICK_QUEUE
from refcut_backend.settings import Settings
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References
from refcut_backend.worker.engine import ClickEngine, Image
from refcut_backend.worker.images import decode_image, fetch_image
from refcut_backend.worker.run_click import serve_with

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
        torch.set_num_threads(os.cpu_count() or 1)
    engine = open_database(settings.database)
    projects, references = Projects(engine), References(engine)

    def load_image(project_id: int, task_id: int, address: str) -> Image:
        data = fetch_image(address, task_id, projects.connection(project_id), settings)
        return decode_image(data, settings.image_max_pixels)

    network = load_network(settings.model_dir).to(device)
    served = serving_settings(network.config)
    try:
        stages = with_runtime(network, served, settings.runtime, settings.runtime_cache_dir)
    except RuntimeChoiceError as error:
        raise ConfigError(f"REFCUT_RUNTIME: {error.message}", hint=error.hint) from None
    click_engine = ClickEngine(stages, load_image, references.load, settings.cached_images, served)
    click_engine.warm_up()
    log.info("worker ready", extra={"device": str(device), "runtime": type(stages).__name__})
    return click_engine


def run_worker(settings: Settings, connection: Redis) -> None:
    """Answers jobs until told to stop (SIGTERM or SIGINT: the click in hand is finished first)."""
    serve_with(make_engine(settings))
    queue = Queue(CLICK_QUEUE, connection=connection, serializer=JSONSerializer)
    worker = SimpleWorker(
        [queue], connection=connection, serializer=JSONSerializer, log_job_description=False
    )
    worker.work(logging_level="WARNING")

"""A worker process: loads the model once, warms it up, and answers jobs without forking (CUDA would not survive it)."""

from __future__ import annotations

import logging
import os

import torch
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from model.version_folder import version_name
from model.weights import load_network
from refcut_backend.errors import ConfigError
from refcut_backend.jobs.click_job import CLICK_QUEUE
from refcut_backend.jobs.warm_job import WARM_QUEUE
from refcut_backend.jobs.warm_queue import WarmQueue
from refcut_backend.settings import Settings
from refcut_backend.store.addresses import Addresses
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References
from refcut_backend.worker.engine import CacheLimits, ClickEngine
from refcut_backend.worker.image_source import open_image_shelf
from refcut_backend.worker.run_click import serve_with
from refcut_backend.worker.run_warm import warm_with

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
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine)

    click_engine = ClickEngine(
        load_network(settings.model_dir).to(device),
        open_image_shelf(settings, projects, Addresses(engine)),
        references.load,
        CacheLimits(settings.feature_cache_max_bytes, settings.reference_cache_max_bytes),
        version_name(settings.model_dir),
    )
    click_engine.warm_up()
    log.info("worker ready", extra={"device": str(device)})
    return click_engine


def run_worker(settings: Settings, connection: Redis) -> None:
    """Answers jobs until told to stop (SIGTERM or SIGINT: the click in hand is finished first)."""
    engine = make_engine(settings)
    serve_with(engine)
    warm_with(engine, WarmQueue(connection).a_click_waits)
    queues = [
        Queue(name, connection=connection, serializer=JSONSerializer) for name in (CLICK_QUEUE, WARM_QUEUE)
    ]
    worker = SimpleWorker(queues, connection=connection, serializer=JSONSerializer, log_job_description=False)
    worker.work(logging_level="WARNING")

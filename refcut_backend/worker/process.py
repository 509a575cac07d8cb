"""A worker process: the device, the model that serves, and the engine around it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch

from model.errors import RuntimeChoiceError
from model.predictor_settings import serving_settings
from model.runtime.choose import with_runtime
from model.version_folder import version_name
from model.weights import load_network
from refcut_backend.errors import ConfigError
from refcut_backend.jobs.redis_server import connect_redis
from refcut_backend.jobs.warm_queue import WarmQueue
from refcut_backend.settings import Settings
from refcut_backend.store.addresses import Addresses
from refcut_backend.store.database import open_database
from refcut_backend.store.projects import Projects
from refcut_backend.store.references import References
from refcut_backend.worker.engine import CacheLimits, ClickEngine
from refcut_backend.worker.image_source import open_image_shelf
from refcut_backend.worker.loop import work
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
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // settings.workers, 1))
    engine = open_database(settings.database)
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine)

    network = load_network(settings.model_dir).to(device)
    served = serving_settings(network.config)
    try:
        stages = with_runtime(network, served, settings.runtime, settings.runtime_cache_dir)
    except RuntimeChoiceError as error:
        raise ConfigError(f"REFCUT_RUNTIME: {error.message}", hint=error.hint) from None
    runtime = type(stages).__name__
    click_engine = ClickEngine(
        stages,
        open_image_shelf(settings, projects, Addresses(engine)),
        references.load,
        CacheLimits(settings.feature_cache_max_bytes, settings.reference_cache_max_bytes),
        f"{version_name(settings.model_dir)}-{runtime}",
        served,
    )
    click_engine.warm_up()
    threads = torch.get_num_threads()
    log.info("model loaded", extra={"device": str(device), "threads": threads, "runtime": runtime})
    return click_engine


def run_worker(settings: Settings, redis_url: str, queues: Sequence[str], name: str) -> int:
    """Works on the settings' model until told to stop. Returns the exit status, as `work` does.

    Raises RefCutError or ModelError when what is needed for these queues is missing.
    """

    def make() -> ClickEngine:
        engine = make_engine(settings)
        warm_with(engine, WarmQueue(connect_redis(redis_url)).a_click_waits)
        return engine

    return work(redis_url, queues, name, make)

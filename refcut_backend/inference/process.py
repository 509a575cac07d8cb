"""Builds the process of a model worker from the settings: device, models, caches, engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch

from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.images.cache import open_image_cache
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.inference.engine import CacheLimits, ClickEngine
from refcut_backend.inference.jobs import JobRunner
from refcut_backend.inference.load_model import (
    ModelLoader,
    choose_device,
    leave_cores_to_openvino,
    share_cores,
    uses_openvino,
)
from refcut_backend.inference.measurer import ReferenceMeasurer
from refcut_backend.inference.models import ProjectModels, ServedModel
from refcut_backend.inference.prelabeller import Prelabeller
from refcut_backend.inference.prepare_versions import VersionPreparer
from refcut_backend.inference.work_loop import work
from refcut_backend.queue.background_queues import PreemptionCheck
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import AHEAD_QUEUE, CLICK_QUEUE, PRELABEL_QUEUE, PRELOAD_QUEUE
from refcut_backend.references.registry import References
from refcut_backend.settings import Settings
from refcut_backend.versions.serving import ServingChoice, open_model_store

log = logging.getLogger("refcut.worker")


def make_engine(settings: Settings) -> ClickEngine:
    """Build the engine and load the shared model.

    Raises:
        ConfigError: If the device, the runtime or the database of the settings is not available.
        ModelError: If the model cannot be loaded.
    """
    device = choose_device(settings.device)
    threads = share_cores(device, settings.workers)
    engine = open_database(settings.database)
    projects = Projects.of(engine, settings)
    references = References(engine)

    models = load_models(settings, device, threads)
    leave_cores_to_openvino(models.shared.network)
    click_engine = ClickEngine(
        models,
        open_image_cache(settings, projects, Addresses(engine), Uploads(engine)),
        references.load,
        CacheLimits(settings.feature_cache_max_bytes, settings.reference_cache_max_bytes),
    )
    click_engine.warm_up()
    runtime = type(models.shared.network).__name__
    log.info("model loaded", extra={"device": str(device), "threads": threads, "runtime": runtime})
    return click_engine


def load_models(settings: Settings, device: torch.device, threads: int) -> ProjectModels:
    """Load the shared model; the versions of projects are loaded when they are needed."""
    store = open_model_store(settings)
    choice = ServingChoice(store, settings.model_dir, store.local_folder)
    loader = ModelLoader(device, settings.runtime, settings.runtime_cache_dir, threads)
    shared = loader.load_shared(settings.model_dir, choice.shared.version)

    def load(version: str, on_conversion: Callable[[], None]) -> ServedModel:
        return loader.load(store.local_folder(version), version, on_conversion)

    return ProjectModels(choice, shared, load, settings.models_in_memory)


def run_worker(settings: Settings, redis_url: str, queues: Sequence[str], name: str) -> int:
    """Run a model worker until SIGTERM.

    Args:
        settings: From the environment.
        redis_url: The Redis with the queues.
        queues: Names of the queues, most urgent first.
        name: Unique name of the worker.

    Returns:
        The exit status, as of `work`.

    Raises:
        RefCutError: If something that these queues need is missing.
        ModelError: If the model cannot be loaded.
    """
    at_the_end = ExitStack()

    def make_runner() -> JobRunner:
        engine = make_engine(settings)
        at_the_end.callback(engine.stop)
        if uses_openvino(engine.shared.network):
            preparer = VersionPreparer(open_model_store(settings), settings.runtime_cache_dir)
            preparer.start()
        for_click = PreemptionCheck(connect_redis(redis_url), (CLICK_QUEUE,))
        for_annotator = PreemptionCheck(connect_redis(redis_url), (CLICK_QUEUE, PRELOAD_QUEUE))
        for_others = PreemptionCheck(
            connect_redis(redis_url), (CLICK_QUEUE, PRELOAD_QUEUE, AHEAD_QUEUE, PRELABEL_QUEUE)
        )
        return JobRunner(
            engine,
            Prelabeller(engine),
            for_click.should_yield,
            for_annotator.should_yield,
            ReferenceMeasurer(engine),
            for_others.should_yield,
        )

    with at_the_end:
        return work(redis_url, queues, name, make_runner)

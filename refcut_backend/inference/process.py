"""A worker process: the device, the model that serves, and the engine around it."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import redis
import torch
from rq.exceptions import StopRequested

from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.errors import START_AGAIN
from refcut_backend.images.cache import open_image_shelf
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.inference.engine import CacheLimits, ClickEngine
from refcut_backend.inference.jobs import AnswersClicks, prelabel_with, serve_with, warm_with
from refcut_backend.inference.load_model import ModelLoader, choose_device, share_cores
from refcut_backend.inference.models import ProjectModels, ServedModel
from refcut_backend.inference.prelabeller import Prelabeller
from refcut_backend.queue.background_queues import PreemptionCheck, PreloadQueue
from refcut_backend.queue.heartbeats import Heartbeat
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_worker import JobWorker
from refcut_backend.references.registry import References
from refcut_backend.settings import Settings
from refcut_backend.versions.serving import ServingChoice, open_model_store

log = logging.getLogger("refcut.worker")


REDIS_PAUSE_S = 1.0


def work(
    redis_url: str,
    queues: Sequence[str],
    name: str,
    make_engine: Callable[[], AnswersClicks] | None,
    stop_event: threading.Event | None = None,
) -> int:
    """Answers jobs until told to stop (SIGTERM or SIGINT: the job in hand is finished first).

    told_to_stop: is set then, for jobs that end early. Returns the exit status: 0, or START_AGAIN when memory ran out
    too often. Redis may be away at any time.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))  # until the model is loaded; then rq takes over
    stop_event = stop_event or threading.Event()
    with Heartbeat(connect_redis(redis_url), name, queues) as heartbeat:
        engine = make_engine() if make_engine else None
        care = serve_with(engine) if engine else None

        def needs_restart() -> bool:
            return care is not None and care.needs_restart

        heartbeat.announce_ready(engine.device if engine else "")
        log.info("worker ready", extra={"worker": name, "queues": list(queues)})
        with connect_redis(redis_url) as connection:
            _work_while_redis_comes_and_goes(
                lambda: JobWorker(queues, connection, heartbeat, stop_event, needs_restart),
                lambda: stop_event.is_set() or needs_restart(),
            )
        return START_AGAIN if needs_restart() else 0


def _work_while_redis_comes_and_goes(
    make_worker: Callable[[], JobWorker], is_done: Callable[[], bool]
) -> None:
    """rq's worker ends when Redis goes away in the middle of a job. The model stays loaded, and a new one goes on."""
    pause_s = 0.0
    while not is_done():
        try:
            time.sleep(pause_s)
            make_worker().work(logging_level="WARNING")
        except StopRequested:
            return
        except redis.RedisError as error:
            log.warning("Redis is away, trying again", extra={"problem": type(error).__name__})
        pause_s = REDIS_PAUSE_S


def make_engine(settings: Settings) -> ClickEngine:
    """The engine with the settings' models, database and limits, warmed up."""
    device = choose_device(settings.device)
    share_cores(device, settings.workers)
    engine = open_database(settings.database)
    projects = Projects(engine, settings.own_token, settings.label_studio_url)
    references = References(engine)

    models = load_models(settings, device)
    click_engine = ClickEngine(
        models,
        open_image_shelf(settings, projects, Addresses(engine)),
        references.load,
        CacheLimits(settings.feature_cache_max_bytes, settings.reference_cache_max_bytes),
    )
    click_engine.warm_up()
    threads = torch.get_num_threads()
    runtime = type(models.shared.network).__name__
    log.info("model loaded", extra={"device": str(device), "threads": threads, "runtime": runtime})
    return click_engine


def load_models(settings: Settings, device: torch.device) -> ProjectModels:
    """The shared model, and the store's versions as they are asked for."""
    store = open_model_store(settings)
    choice = ServingChoice(store, settings.model_dir, store.local_folder)
    loader = ModelLoader(device, settings.runtime, settings.runtime_cache_dir)
    shared = loader.load_shared(settings.model_dir, choice.shared.version)

    def load(version: str) -> ServedModel:
        return loader.load(store.local_folder(version), version)

    return ProjectModels(choice, shared, load, settings.models_in_memory)


def run_worker(settings: Settings, redis_url: str, queues: Sequence[str], name: str) -> int:
    """Works on the settings' model until told to stop. Returns the exit status, as `work` does.

    Raises RefCutError or ModelError when what is needed for these queues is missing.
    """

    def make() -> ClickEngine:
        engine = make_engine(settings)
        warm_with(engine, PreloadQueue(connect_redis(redis_url)).a_click_waits)
        prelabel_with(Prelabeller(engine), PreemptionCheck(connect_redis(redis_url)))
        return engine

    return work(redis_url, queues, name, make)

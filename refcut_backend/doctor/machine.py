"""What this machine must have: Redis, database, model, device, web server, worker."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import httpx
import numpy as np
import redis
from sqlalchemy import text

from model.checkpoints.version_folder import version_name
from refcut_backend.database.engine import open_database
from refcut_backend.doctor.findings import Check, Finding
from refcut_backend.queue.heartbeats import living_workers
from refcut_backend.queue.redis import check_redis, connect_redis
from refcut_backend.settings import Settings

HTTP_LIMIT_S = 3.0


def machine_checks(settings: Settings) -> list[tuple[str, Check]]:
    """The checks in the order in which a click needs them."""
    return [
        ("redis", lambda: check_the_redis(settings)),
        ("database", lambda: check_database(settings)),
        ("model", lambda: check_model(settings)),
        ("web server", lambda: check_web(settings)),
    ]


def check_the_redis(settings: Settings) -> Iterator[Finding]:
    """Whether the named Redis answers, and whether workers are there."""
    if settings.redis_url is None:
        yield Finding("redis", "ok", "none is named: `refcut run` embeds one of its own")
        return
    check_redis(settings.redis_url)
    yield Finding("redis", "ok", "answers")
    connection = connect_redis(settings.redis_url)
    try:
        workers = [worker for worker in living_workers(connection) if worker.ready]
    except redis.RedisError as error:
        yield Finding("worker", "wrong", f"Redis fails ({type(error).__name__})", "check its log")
        return
    if workers:
        yield Finding("worker", "ok", f"{len(workers)} ready on this Redis")
    else:
        yield Finding("worker", "wrong", "none is ready on this Redis", "start `refcut worker`")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether the database opens. Raises ConfigError when it does not."""
    engine = open_database(settings.database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    yield Finding("database", "ok", f"{engine.dialect.name} opens")


def check_model(settings: Settings) -> Iterator[Finding]:
    """Loads the model as a worker does and makes one click. Raises ModelError or ConfigError when that fails."""
    yield Finding("model", "ok", f"{version_name(settings.model_dir)} in {settings.model_dir}")
    import torch  # only here: the other checks need not wait for it

    from model.checkpoints.weights import load_network
    from model.predictor import RefCutPredictor, serving_settings
    from model.runtime.select import with_runtime
    from model.types import Click
    from refcut_backend.inference.load_model import choose_device

    device = choose_device(settings.device)
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "wrong" if settings.device != "cpu" else "note",
            "an NVIDIA GPU seems to be here, but torch does not use it",
            "install the CUDA build of torch, or set REFCUT_DEVICE=cpu if that is meant",
        )
    else:
        yield Finding("device", "ok", f"{device}, {torch.get_num_threads()} threads")
    network = load_network(settings.model_dir).to(device)
    served = serving_settings(network.config)
    stages = with_runtime(network, served, settings.runtime, settings.runtime_cache_dir)
    predictor = RefCutPredictor(stages, served)
    predictor.set_image(np.full((64, 64, 3), 127, np.uint8))
    predictor.predict([Click(32.0, 32.0)])
    started = time.monotonic()
    predictor.predict([Click(32.0, 32.0), Click(10.0, 10.0, False)])
    yield Finding(
        "click",
        "ok",
        f"{1000 * (time.monotonic() - started):.0f} ms in the network ({type(stages).__name__})",
    )


def check_web(settings: Settings) -> Iterator[Finding]:
    """Whether the web server runs and is ready for clicks."""
    address = settings.local_address
    try:
        with httpx.Client(base_url=address, timeout=HTTP_LIMIT_S, trust_env=False) as client:
            ready = client.get("/readyz")
    except httpx.HTTPError:
        yield Finding("web server", "note", f"nothing listens on {address}", "start it with `refcut run`")
        return
    if ready.is_success:
        yield Finding("web server", "ok", f"{address} is ready")
    else:
        yield Finding("web server", "wrong", f"{address} is not ready: {ready.text[:200]}", "see its log")

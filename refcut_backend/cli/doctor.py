"""`refcut doctor`: findings, and the checks of this machine in the order in which a click needs them.

A new check is a generator of `Finding` and an entry in `machine_checks`; a check of a project belongs into
`doctor_project.py`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import httpx
import numpy as np
from rich.console import Console
from rich.text import Text
from sqlalchemy import text

from model.checkpoints.version_folder import version_name
from model.errors import ModelError
from refcut_backend.cli.running_backends import require_database, running_backends
from refcut_backend.database.engine import open_database
from refcut_backend.errors import RefCutError
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.redis import check_redis, connect_redis, published_url
from refcut_backend.settings import Settings
from refcut_backend.system.cores import usable_cores

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was checked, such as "redis" or "project 7".
        state: "ok", "note" (works, with a limitation) or "wrong".
        what: What was found.
        advice: What to do about it; empty if nothing.
    """

    subject: str
    state: State
    what: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run the checks in order. An exception is a finding too, and ends only the check that raised it.

    Args:
        checks: Pairs of a subject and a check; the subject names the finding of an exception.
    """
    for subject, check in checks:
        try:
            yield from check()
        except (RefCutError, ModelError) as error:
            yield Finding(subject, "wrong", error.message, error.hint)
        except Exception as error:
            # The text of an unexpected error may hold a request or a response, with secrets.
            yield Finding(
                subject,
                "wrong",
                f"the check failed unexpectedly ({type(error).__name__})",
                "please report this",
            )


HTTP_LIMIT_S = 3.0
DISK_FULL_BYTES = 200 * 2**20
DISK_SCARCE_BYTES = 2 * 2**30


def machine_checks(settings: Settings) -> list[tuple[str, Check]]:
    """The checks of Redis, database, disk, model and web server."""
    return [
        ("redis", lambda: check_the_redis(settings)),
        ("database", lambda: check_database(settings)),
        ("disk", lambda: check_disk(settings)),
        ("model", lambda: check_model(settings)),
        ("web server", lambda: check_web(settings)),
    ]


def check_the_redis(settings: Settings) -> Iterator[Finding]:
    """Check that the Redis of the backend answers and can be written, and that workers are ready.

    Raises:
        ConfigError: If it does not answer.
        QueueUnavailableError: If it cannot be written.
    """
    url = settings.redis_url or published_url(settings.state_dir)
    if url is None:
        yield Finding("redis", "ok", "REFCUT_REDIS_URL is not set: `refcut run` embeds a Redis")
        return
    check_redis(url)
    with connect_redis(url) as connection:
        workers = [worker for worker in read_queue_state(connection).workers if worker.ready]
    embedded = "" if settings.redis_url else "the one that `refcut run` embeds "
    yield Finding("redis", "ok", f"{embedded}answers and can be written")
    if workers:
        yield Finding("worker", "ok", f"{len(workers)} ready on this Redis")
    else:
        yield Finding("worker", "wrong", "none is ready on this Redis", "start `refcut worker`")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check that there is a database and that it opens. Raises ConfigError if not."""
    require_database(settings)
    engine = open_database(settings.database)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    yield Finding("database", "ok", f"{engine.dialect.name} opens")


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Check that the state folder can grow: the database, trained versions, snapshots of trainings."""
    folder = settings.state_dir.resolve()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    what = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < DISK_FULL_BYTES:
        yield Finding("disk", "wrong", what, "free some: clicks and references are stored there")
    elif free < DISK_SCARCE_BYTES:
        yield Finding("disk", "note", what, "a training needs more for its snapshot and its versions")
    else:
        yield Finding("disk", "ok", what)


def check_threads(settings: Settings, threads: int) -> Finding:
    """Check that the workers of `refcut run` do not get in each other's way.

    Args:
        settings: From the environment.
        threads: Threads that a worker computes with.
    """
    cores = usable_cores()
    if settings.workers <= cores:
        return Finding("threads", "ok", f"{threads} per worker; {settings.workers} workers on {cores} cores")
    return Finding(
        "threads",
        "note",
        f"{settings.workers} workers share {cores} cores: each click takes longer",
        f"set REFCUT_WORKERS to at most {cores}",
    )


def check_model(settings: Settings) -> Iterator[Finding]:
    """Load the model as a worker does, and compute one click.

    Raises:
        ModelError: If the model cannot be loaded.
        ConfigError: If the device or the runtime of the settings is not available.
    """
    yield Finding("model", "ok", f"{version_name(settings.model_dir)} in {settings.model_dir}")
    import torch  # takes seconds; the checks before do not wait for it

    from model.checkpoints.weights import load_network
    from model.predictor import RefCutPredictor
    from model.predictor_config import serving_settings
    from model.runtime.select import with_runtime
    from model.types import Click
    from refcut_backend.inference.load_model import choose_device

    device = choose_device(settings.device)
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "wrong" if settings.device != "cpu" else "note",
            "the machine seems to have an NVIDIA GPU, but torch does not use it",
            "install the CUDA build of torch, or set REFCUT_DEVICE=cpu to use the processor on purpose",
        )
    else:
        yield Finding("device", "ok", str(device))
    if device.type == "cpu":
        yield check_threads(settings, torch.get_num_threads())
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
    """Check that the web server runs, is that of this state folder, and is ready for clicks."""
    address = settings.local_address
    here = str(settings.state_dir.resolve())
    others = [one for one in running_backends() if one.port == settings.port and one.state_dir != here]
    if others:
        yield Finding(
            "web server",
            "wrong",
            f"{address} belongs to the backend on {others[0].state_dir}, not to the one on {here}",
            "start `refcut run` for this folder on another REFCUT_PORT, or choose the other REFCUT_STATE_DIR",
        )
        return
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


MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "wrong": ("✗", "red")}


def print_findings(findings: Iterable[Finding], console: Console) -> bool:
    """Print the findings. Returns True if none of them is "wrong"."""
    all_good = True
    for finding in findings:
        mark, colour = MARKS[finding.state]
        line = Text.assemble((f"{mark} ", colour), (f"{finding.subject:<12} ", "bold"), finding.what)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"  {'':<12} → {finding.advice}", style=colour), soft_wrap=True)
        all_good = all_good and finding.state != "wrong"
    return all_good


def print_json(findings: Iterable[Finding]) -> bool:
    """Print each finding as one line of JSON as soon as it is there. Returns as `print_findings` does."""
    all_good = True
    for finding in findings:
        print(json.dumps(asdict(finding)), flush=True)
        all_good = all_good and finding.state != "wrong"
    return all_good

"""The `refcut` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from model.errors import ModelError
from refcut_backend.errors import CANNOT_START, ConfigError, RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import Settings, read_settings

app = typer.Typer(help="RefCut for Label Studio.", no_args_is_help=True, add_completion=False)


@contextmanager
def _explained(status: int = 1) -> Iterator[None]:
    """Expected errors as one line and an exit status."""
    try:
        yield
    except (RefCutError, ModelError) as error:
        print(f"refcut: {error}", file=sys.stderr)
        raise typer.Exit(status) from None


def _with_settings(action: Callable[[Settings], None], status: int = 1) -> None:
    set_up_logging()
    with _explained(status):
        action(read_settings())


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise ConfigError(
            "no Redis is named", hint="set REFCUT_REDIS_URL, or start everything with `refcut run`"
        )
    return settings.redis_url


@app.command()
def run() -> None:
    """Start everything on this machine: Redis (unless REFCUT_REDIS_URL names one), worker and web server."""
    from refcut_backend.supervisor import Supervisor

    set_up_logging()
    with _explained():
        status = Supervisor(read_settings()).run()
    raise typer.Exit(status)


@app.command()
def serve() -> None:
    """Start the web server that Label Studio calls."""
    import uvicorn

    from refcut_backend.jobs.redis_server import connect_redis
    from refcut_backend.web.access import Access, warn_when_open
    from refcut_backend.web.app import THREADS_SWITCH_AFTER_S, connect_services, create_app

    def action(settings: Settings) -> None:
        services = connect_services(settings, connect_redis(_redis_url(settings)))
        warn_when_open(settings)
        sys.setswitchinterval(THREADS_SWITCH_AFTER_S)
        uvicorn.run(
            create_app(services, settings.request_max_bytes, Access.of(settings)),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.click_timeout_s,
        )

    _with_settings(action)


@app.command()
def worker() -> None:
    """Start a worker: loads the model and answers clicks."""
    from refcut_backend.jobs.redis_server import connect_redis
    from refcut_backend.worker.process import run_worker

    _with_settings(lambda settings: run_worker(settings, connect_redis(_redis_url(settings))), CANNOT_START)


@app.command()
def settings() -> None:
    """Print every setting with its default, as a Markdown table."""
    from refcut_backend.settings_table import settings_table

    print(settings_table())

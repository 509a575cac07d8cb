"""A server that speaks the protocol of Amazon's S3 on loopback, as a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from s3fs import S3FileSystem

from tests.support.running_backend import START_LIMIT_S, free_port
from tests.support.worker_farm import wait_for


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Its address."""
    port = free_port()

    def accepts() -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(accepts, "the S3 server was up", START_LIMIT_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def new_bucket(server: str, environment: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket, to which the environment gives access as an engineer's would."""
    environment.setenv("AWS_ENDPOINT_URL", server)
    environment.setenv("AWS_ACCESS_KEY_ID", "test")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"refcut-{uuid.uuid4().hex}"
    S3FileSystem().mkdir(name)
    return name

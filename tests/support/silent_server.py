"""A server that accepts connections and never says a word, and one that answers in drops."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def silent_server(drop: bytes = b"", every_s: float = 0.05) -> Iterator[str]:
    """Host and port of a server on loopback.

    Args:
        drop: What it sends to each connection again and again; nothing by default.
        every_s: Pause between two drops in seconds.
    """
    ended = threading.Event()
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            while drop and not ended.wait(every_s):
                connection.sendall(drop)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()

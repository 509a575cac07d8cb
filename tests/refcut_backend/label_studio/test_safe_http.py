"""tests/refcut_backend/label_studio/test_safe_http.py."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from refcut_backend.errors import AddressRefusedError
from refcut_backend.label_studio import safe_http
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.label_studio.safe_http import TRIES, Budget, GuardedTransport, RetryingTransport
from tests.support.fake_label_studio import Answer, FakeLabelStudio

NOBODY = AllowedHosts.of([])


def get(url: str, allowed: AllowedHosts = NOBODY, resolve: Callable[..., list[str]] = safe_http.resolve):
    transport = GuardedTransport(allowed, Budget(limit_s=20), resolve)
    with httpx.Client(transport=transport, trust_env=False, follow_redirects=True) as client:
        return client.get(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0177.1",
        "0x7f.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0",
    ],
)
def test_every_way_to_write_a_private_address_is_refused_before_connecting(label_studio, host):
    with pytest.raises(AddressRefusedError, match="REFCUT_IMAGE_HOSTS"):
        get(f"http://{host}:{label_studio.port}/a.png")
    assert label_studio.seen == []


def test_an_address_with_octal_numbers_is_no_address():
    with pytest.raises(httpx.InvalidURL):
        get("http://0177.0.0.1/")


def test_a_metadata_service_is_refused_without_a_packet(monkeypatch):
    def never(*_arguments: object, **_more: object) -> None:
        pytest.fail("it was connected to")

    monkeypatch.setattr(socket, "create_connection", never)
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200"):
        for allowed in (NOBODY, AllowedHosts.of([f"http://{host}"]), AllowedHosts.of([], [host])):
            with pytest.raises(AddressRefusedError):
                get(f"http://{host}/latest/meta-data/", allowed)


def test_a_resolver_that_hangs_does_not_outlast_the_deadline():
    released = threading.Event()

    def hang(*_: object) -> list[str]:
        released.wait(30)
        return []

    transport = GuardedTransport(NOBODY, Budget(limit_s=0.2), hang)
    try:
        with (
            httpx.Client(transport=transport, trust_env=False) as client,
            pytest.raises(httpx.ConnectTimeout, match=r"pictures\.example was not resolved in time"),
        ):
            client.get("http://pictures.example/a.png")
    finally:
        released.set()


def test_a_name_that_resolves_to_a_private_address_is_refused(label_studio):
    for answer in (["10.0.0.5"], ["8.8.8.8", "127.0.0.1"], ["::ffff:10.0.0.5"]):
        with pytest.raises(AddressRefusedError):
            get(
                f"http://pictures.example:{label_studio.port}/a.png", resolve=lambda *_, answer=answer: answer
            )
    assert label_studio.seen == []


def test_the_checked_address_is_the_one_connected_to(label_studio, monkeypatch):
    monkeypatch.setattr(safe_http, "is_public", lambda address: address == "127.0.0.1")
    label_studio.legacy = None
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    get(f"http://rebinding.invalid:{label_studio.port}/a.png", resolve=lambda *_: next(answers))
    assert [seen.headers["Host"] for seen in label_studio.seen] == [f"rebinding.invalid:{label_studio.port}"]
    with pytest.raises(AddressRefusedError):
        get(f"http://rebinding.invalid:{label_studio.port}/a.png", resolve=lambda *_: next(answers))


def test_a_redirect_to_a_private_address_is_refused(label_studio, monkeypatch):
    allowed = AllowedHosts.of([label_studio.url])
    other = f"http://localhost:{label_studio.port}/secret"
    label_studio.good.add(None)
    label_studio.files["/a.png"] = Answer(status=302, headers={"Location": other})
    with pytest.raises(AddressRefusedError):
        get(f"{label_studio.url}/a.png", allowed)
    assert [seen.path for seen in label_studio.seen] == ["/a.png"]


def test_tls_names_the_host_of_the_address_and_not_its_number(monkeypatch):
    monkeypatch.setattr(safe_http, "is_public", lambda _address: True)
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(httpx.ConnectError):
            get(f"https://pictures.example:{server.getsockname()[1]}/", resolve=lambda *_: ["127.0.0.1"])
        thread.join()
    assert names == ["pictures.example"]


def test_a_name_without_an_address_is_a_connection_error():
    def unknown(*_arguments: object) -> list[str]:
        raise socket.gaierror("no such name")

    with pytest.raises(httpx.ConnectError):
        get("http://nowhere.invalid/", resolve=unknown)


def test_an_address_that_swallows_packets_leaves_time_for_the_next(label_studio, monkeypatch):
    tried: list[tuple[str, float]] = []
    connect = socket.create_connection

    def swallow(address: tuple[str, int], timeout: float, **more: object) -> socket.socket:
        tried.append((address[0], timeout))
        if address[0] != "127.0.0.1":
            raise TimeoutError
        return connect(address, timeout, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(safe_http, "is_public", lambda _address: True)
    monkeypatch.setattr(socket, "create_connection", swallow)
    label_studio.good.add(None)
    label_studio.files["/a.png"] = Answer(b"picture")
    two = ["2001:db8::1", "127.0.0.1"]
    assert get(f"http://both.invalid:{label_studio.port}/a.png", resolve=lambda *_: two).content == b"picture"
    assert [address for address, _ in tried] == two
    assert 2.4 < tried[0][1] <= 2.5


def test_the_environment_s_proxy_is_not_asked(label_studio: FakeLabelStudio, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    label_studio.good.add(None)
    label_studio.files["/a.png"] = Answer(b"picture")
    assert get(f"{label_studio.url}/a.png", AllowedHosts.of([label_studio.url])).content == b"picture"


class Server(httpx.BaseTransport):
    """Answers with what it is given, one after another; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ask(server: Server, time_left_s: float | None = None) -> httpx.Response:
    with httpx.Client(transport=RetryingTransport(server, lambda: time_left_s)) as client:
        return client.get("http://ls/")


def busy(status: int, retry_after: str | None = "0") -> httpx.Response:
    return httpx.Response(status, headers={} if retry_after is None else {"Retry-After": retry_after})


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status):
    server = Server(busy(status), busy(status, None), httpx.Response(200))
    assert ask(server).status_code == 200


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404])
def test_other_answers_are_final(status):
    server = Server(httpx.Response(status))
    assert ask(server).status_code == status


def test_a_server_that_stays_busy_is_given_up_with_its_last_answer():
    server = Server(*[busy(503)] * 5)
    assert ask(server).status_code == 503
    assert server.requests == TRIES


def test_a_server_that_restarts_is_asked_again_and_its_error_raised_when_it_stays_away():
    server = Server(httpx.ConnectError("refused"), httpx.Response(200))
    assert ask(server).status_code == 200
    with pytest.raises(httpx.ConnectError):
        ask(Server(*[httpx.ConnectError("refused")] * 5))


def test_a_wait_longer_than_the_time_left_is_not_begun(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: pytest.fail("it waited"))
    server = Server(busy(429, "30"), httpx.Response(200))
    assert ask(server, time_left_s=6).status_code == 429


def test_retry_after_is_waited_for(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    ask(Server(busy(429, "2"), httpx.Response(200)), time_left_s=6)
    assert waits == [2.0]


def test_without_retry_after_waits_grow_and_differ(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    for _ in range(8):
        ask(Server(busy(503, None), busy(503, "soon"), httpx.Response(200)))
    assert all(
        0.2 <= first <= 0.4 and 0.4 <= second <= 0.6
        for first, second in zip(waits[::2], waits[1::2], strict=True)
    )
    assert len(set(waits[::2])) > 1

from __future__ import annotations

import json
import logging
import sys
import threading

import pytest

from refcut_backend.logs import SafeJsonFormatter, collect_fields, note, set_up_logging


def line(message: str, **extra: object) -> str:
    record = logging.LogRecord("refcut", logging.WARNING, "file.py", 1, message, (), None)
    record.__dict__.update(extra)
    return SafeJsonFormatter("%(message)s").format(record)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://bucket.example/a.jpg?X-Amz-Signature=canary&X-Amz-Date=1",
        "Retrying after ReadTimeout: /a.jpg?sig=canary",
        "redis://user:canary@redis:6379/0 is away",
        "postgresql://canary@db/refcut",
        "sent Authorization: Token canary-0123456789abcdef",
        "{'Authorization': 'Bearer canary.canary.canary1'}",
        "authorization: basic Y2FuYXJ5Y2FuYXJ5",
    ],
)
def test_addresses_and_headers_lose_their_secrets_whoever_logs_them(text):
    for written in (line(text), line("x", problem=text), line("x", nested={"inside": [text]})):
        assert "canary" not in written
        assert "Y2FuYXJ5" not in written
        json.loads(written)


def test_a_traceback_loses_its_secrets_too():
    try:
        raise ValueError("https://bucket.example/a.jpg?sig=canary")
    except ValueError:
        record = logging.LogRecord("refcut", logging.ERROR, "file.py", 1, "failed", (), sys.exc_info())
    written = SafeJsonFormatter("%(message)s").format(record)
    assert "canary" not in written
    assert "ValueError" in json.loads(written)["exc_info"]


@pytest.mark.parametrize("text", ["is Redis running?", "token, host", "basic authentication failed", "a = b"])
def test_plain_sentences_stay_as_they_are(text):
    assert json.loads(line(text))["message"] == text


def test_a_line_is_one_json_object_whatever_is_in_it(capsys):
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        set_up_logging()
        logging.getLogger("refcut.test").info("said", extra={"label": 'new\nline "quoted" <script>'})
    finally:
        logging.getLogger().handlers[:] = before
        logging.getLogger().setLevel(level)
        logging.getLogger("refcut").setLevel(logging.NOTSET)
    (written,) = capsys.readouterr().err.splitlines()
    assert json.loads(written)["label"] == 'new\nline "quoted" <script>'
    assert json.loads(written)["event"] == "said"


def test_what_is_noted_is_gathered_for_the_request_in_hand_alone():
    seen = {}

    def request(number: int) -> None:
        with collect_fields() as facts:
            note(number=number)
            both.wait(30)
            note(done=True)
        seen[number] = facts

    both = threading.Barrier(2)
    threads = [threading.Thread(target=request, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {1: {"number": 1, "done": True}, 2: {"number": 2, "done": True}}


def test_a_note_outside_of_a_request_is_lost_without_harm():
    note(number=1)
    with collect_fields() as facts:
        pass
    assert facts == {}

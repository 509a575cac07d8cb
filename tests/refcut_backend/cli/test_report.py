"""How findings are shown."""

from __future__ import annotations

from rich.console import Console

from refcut_backend.cli.doctor import Finding, print_findings, run_checks


def shown(*findings: Finding) -> tuple[bool, str]:
    console = Console(record=True, width=80)
    return print_findings(findings, console), console.export_text()


def test_one_wrong_finding_makes_the_whole_wrong() -> None:
    well, text = shown(
        Finding("redis", "ok", "answers"), Finding("model", "wrong", "damaged", "restore the file")
    )
    assert not well
    assert "restore the file" in text


def test_a_note_leaves_it_well() -> None:
    assert shown(Finding("web server", "note", "not running", "start it"))[0]


def test_brackets_in_a_message_are_shown_as_they_are() -> None:
    assert "labels ['a'] [bold]" in shown(Finding("x", "ok", "labels ['a'] [bold]"))[1]


def test_a_check_that_breaks_is_a_finding_without_its_text_and_the_others_go_on() -> None:
    def breaks() -> list[Finding]:
        raise ValueError("canary")

    first, second = run_checks([("a", breaks), ("b", lambda: [Finding("b", "ok", "answers")])])
    assert (first.state, second.state) == ("wrong", "ok")
    assert "ValueError" in first.what
    assert "canary" not in first.what + first.advice

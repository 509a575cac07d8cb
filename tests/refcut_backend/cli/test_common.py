"""What anybody may have written is shown, and never obeyed."""

from __future__ import annotations

from refcut_backend.cli.common import PIPE_COLUMNS, open_console, plain


def test_control_characters_do_not_reach_the_terminal():
    assert plain("\x1b[31mred\x07").plain == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"


def test_lines_stay_lines_and_markup_is_text():
    assert plain("[bold]one\ntwo").plain == "[bold]one\ntwo"


def test_a_table_in_a_pipe_is_wide(capsys):
    assert open_console().width == PIPE_COLUMNS

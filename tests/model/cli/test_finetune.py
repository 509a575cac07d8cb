"""Fine-tuning from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.checkpoints.weights import load_network
from model.cli.finetune import main
from tests.support.synthetic_snapshot import QUICK, fish_snapshot, parent_version


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "parent")


def test_the_command_trains_and_says_what_is_wrong_in_one_line(tmp_path, parent, capsys):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    arguments = [
        str(snapshot.folder),
        "--parent",
        str(parent),
        "--out",
        str(tmp_path / "run"),
        "--threads",
        "1",
    ]
    main([*arguments, "--settings", QUICK.model_dump_json(exclude_defaults=True)])
    load_network(tmp_path / "run")
    shutil.rmtree(snapshot.folder)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1:]) == 1


@pytest.mark.parametrize("option", ["--anchor", "--origin"])
def test_the_result_is_averaged_with_the_named_anchor(tmp_path, parent, option, monkeypatch):
    anchors = []
    monkeypatch.setattr("model.cli.finetune.fine_tune", lambda *arguments: anchors.append(arguments[-1]))
    snapshot = fish_snapshot(tmp_path / "snapshot").folder
    main(
        [
            str(snapshot),
            "--parent",
            str(parent),
            option,
            str(tmp_path / "anchor"),
            "--out",
            str(tmp_path / "run"),
        ]
    )
    assert anchors == [tmp_path / "anchor"]

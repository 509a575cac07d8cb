"""Put a trained reader into a version: in the place of the version's own, or averaged with it.

Nothing else of the version changes. OUT also gets the result as reader.safetensors, from which a training of the reader
can start (`parent`). Which share is best has to be measured with `python -m model evaluate --weights DIR`.

    python -m model take-reader model/weights/s14 runs/reader/reader.safetensors --share 0.5 --out runs/between
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, copy_base, whole_network_file
from model.checkpoints.weights import load_network, save_version
from model.cli.average import share_of
from model.cli.common import command_parser
from model.errors import ModelError, WeightsError
from model.training.reader_training import WEIGHTS_FILE as READER_FILE
from model.training.reader_training import load_reader, save_reader


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("take-reader", __doc__)
    parser.add_argument("version", type=Path, help="folder of a version that has a reader")
    parser.add_argument("reader", type=Path, help="reader.safetensors of a training of the reader")
    parser.add_argument(
        "--share", type=share_of, default=1.0, help="share of the new reader, 0 to 1 (default: 1.0)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the result")
    arguments = parser.parse_args(argv)
    try:
        take_reader(arguments.version, arguments.reader, arguments.share, arguments.out)
    except ModelError as error:
        parser.error(str(error))


def take_reader(version: Path, reader_file: Path, share: float, out: Path) -> None:
    """Write a version with another reader: (1 - share) times its own plus share times the other one.

    Args:
        version: Folder of a version that has a reader.
        reader_file: What `python -m model train-reader` wrote.
        share: Share of the reader in the file, 0..1.
        out: Folder for the result, not the version's.

    Raises:
        WeightsError: If a file cannot be read, or `version` is a whole network, has no reader or one of another shape, or
            is `out`.
    """
    if out.resolve() == version.resolve():
        raise WeightsError(f"{out} is the version itself", hint="name another folder for --out")
    if whole_network_file(version) is not None:
        raise WeightsError(
            f"{version} is a whole network", hint="name the folder of a version with a frozen base"
        )
    network, taken = load_network(version), load_reader(reader_file)
    if network.config.reader != taken.config:
        raise WeightsError(
            f"{reader_file} does not fit the reader of {version}",
            hint="take a reader that was trained from it",
        )
    others = taken.state_dict()
    own = network.reader.state_dict()
    if any(others[name].shape != value.shape for name, value in own.items()):
        raise WeightsError(
            f"{reader_file} compares other features than {version}",
            hint="take a reader that was trained from it",
        )
    network.reader.load_state_dict({name: value.lerp(others[name], share) for name, value in own.items()})
    out.mkdir(parents=True, exist_ok=True)
    copy_base(version, out)
    save_version(network.state_dict(), network.config, out / BASE_FILE, out / VERSION_FILE)
    save_reader(network.reader.state_dict(), network.reader, out / READER_FILE)

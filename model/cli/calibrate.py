"""Correct the expected IoU of a version by the IoU that its masks had in an evaluation.

The expected IoU is the score that annotators see, and what pre-labelled tasks are ordered by. Evaluate a version on
images that it was not trained on, then fit the correction on the results:

    python -m model evaluate --weights runs/new --data coco:val.json:images --out results
    python -m model calibrate runs/new results --out runs/new-calibrated
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, copy_base, version_name
from model.checkpoints.weights import load_network, save_version
from model.cli.common import command_parser
from model.errors import DataError, ModelError, WeightsError
from model.evaluation.calibration import Correction, correction_of
from model.evaluation.records import read_records, read_settings


def calibrate(weights: Path, results: Path, out: Path) -> Correction:
    """Write a version with a corrected expected IoU.

    Args:
        weights: Folder of the version.
        results: Folder that an evaluation of this version has written.
        out: Folder for the corrected version, not `weights`.

    Returns:
        The correction that was added.

    Raises:
        DataError: If the results are of another version, or too few.
        WeightsError: If the version cannot be read, or does not estimate the IoU of its masks.
    """
    if out.resolve() == weights.resolve():
        raise WeightsError(f"{out} is the version itself", hint="name another folder for --out")
    network = load_network(weights)
    if network.config.candidates == 1:
        raise WeightsError(
            f"{weights} does not estimate the IoU of its masks",
            hint="only a network with candidate masks has an expected IoU",
        )
    evaluated = read_settings(results).get("weights")
    if evaluated != version_name(weights):
        raise DataError(
            f"{results} has results of {evaluated}, not of {version_name(weights)}",
            hint="evaluate the version that is to be calibrated",
        )
    found = correction_of(read_records(results))
    scale, shift = network.candidates.calibration.tolist()
    total = found.after(Correction(scale, shift))
    network.candidates.calibration.copy_(torch.tensor([total.scale, total.shift]))
    out.mkdir(parents=True, exist_ok=True)
    copy_base(weights, out)
    save_version(network.state_dict(), network.config, out / BASE_FILE, out / VERSION_FILE)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("calibrate", __doc__)
    parser.add_argument("weights", type=Path, help="folder of the version")
    parser.add_argument("results", type=Path, help="folder of its evaluation")
    parser.add_argument("--out", type=Path, required=True, help="folder for the corrected version")
    arguments = parser.parse_args(argv)
    try:
        found = calibrate(arguments.weights, arguments.results, arguments.out)
    except ModelError as error:
        parser.error(str(error))
    print(f"logit of the expected IoU: times {found.scale:.3f}, plus {found.shift:+.3f}")

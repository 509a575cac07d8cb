"""Measure clicks with and without references on annotated sets.

A simulated annotator segments every part, connected pair of parts and whole object of a set, in each mode. The command
resumes when it is run again with the same --out; samples, modes and sets may be added then.

    python -m model evaluate --data SET --data SET --out DIR --modes right none wrong --limit 150 --at-least 100

`python -m model compare DIR DIR` compares two networks that were measured on the same work.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from model.checkpoints.weights import load_network, version_name
from model.cli.common import OneLineParser, add_threads, add_weights, command_parser
from model.data.annotated_objects import is_development
from model.data.readers import HINT, SetDescription
from model.errors import DataError, ModelError
from model.evaluation.modes import MODE_GROUPS, Mode, parse_modes
from model.evaluation.pictures import write_contact_sheet
from model.evaluation.plots import write_plots
from model.evaluation.records import Record, RecordFile
from model.evaluation.references import ReferenceFinder
from model.evaluation.report import Results, as_markdown, file_safe, write_results
from model.evaluation.runner import RIGHT, ClickLimits, EvaluationSet, Task, run_tasks
from model.evaluation.samples import Sample, enumerate_samples, limit_samples, with_repeats
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings, serving_settings
from model.runtime.select import RuntimeName, with_runtime


@dataclass(frozen=True)
class PredictorFactory:
    """Makes the predictor of an evaluation process. It is sent to that process.

    Attributes:
        weights: Folder or file of a network.
        changes: Settings of `PredictorSettings` that differ from the served ones.
        threads: CPU threads of the process.
        runtime: What computes the network.
    """

    weights: Path
    changes: dict[str, Any]
    threads: int
    runtime: RuntimeName = "torch"

    def __call__(self) -> RefCutPredictor:
        """Load the network and make a predictor.

        Raises:
            ModelError: If the weights cannot be read or the runtime cannot be used.
            ValueError: If a setting does not fit the network.
        """
        torch.set_num_threads(self.threads)
        network = load_network(self.weights)
        settings = dataclasses.replace(serving_settings(network.config), **self.changes)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return RefCutPredictor(with_runtime(network.to(device), settings, self.runtime), settings)


def evaluate(arguments: argparse.Namespace) -> None:
    """Run everything that has no result in the output folder yet, and write tables and pictures.

    Args:
        arguments: Of `make_parser`.

    Raises:
        ModelError: If sets, weights or results in the folder cannot be used.
        ValueError: If modes or settings are invalid.
    """
    modes = parse_modes(arguments.modes)
    limits = ClickLimits(arguments.max_clicks, min(arguments.min_clicks, arguments.max_clicks))
    sets = [read_set(description, arguments.development) for description in arguments.data]
    if len({one.name for one in sets}) < len(sets):
        raise DataError("two sets have the same name", hint="add ,name=N to one of them")
    factory = PredictorFactory(
        arguments.weights,
        changed_settings(arguments),
        max(1, arguments.threads // arguments.workers),
        arguments.runtime,
    )
    served = factory().settings
    file = RecordFile(arguments.out, describe(arguments, served, limits))
    samples = [choose_samples(one, arguments.limit, arguments.at_least) for one in sets]
    tasks = missing_tasks(sets, samples, modes, {record.key for record in file.read()})
    with tqdm(total=sum(len(task.modes) for task in tasks), unit="run", disable=None) as bar:
        for records in run_tasks(sets, tasks, factory, limits, arguments.workers):
            file.append(records)
            bar.update(len(records))
    wanted = [record for record in file.read() if record.mode in {mode.name for mode in modes}]
    report(arguments.out, select(wanted, sets, samples), sets, limits.max_clicks)


def describe(
    arguments: argparse.Namespace, settings: PredictorSettings, limits: ClickLimits
) -> dict[str, Any]:
    """Everything that must be equal for results to be comparable. A folder holds results of one description only."""
    return {
        "weights": version_name(arguments.weights),
        "predictor": dataclasses.asdict(settings),
        "clicks": dataclasses.asdict(limits),
        "development": arguments.development,
    } | ({} if arguments.runtime == "torch" else {"runtime": arguments.runtime})


def read_set(description: SetDescription, development: float | None) -> EvaluationSet:
    """Read the objects of a set.

    Args:
        description: Where the set is, and its format.
        development: Take only this share of the objects, the one that training leaves out; None takes all.
    """
    annotated_objects = description.read()
    if development is not None:
        annotated_objects = [
            annotated_object
            for annotated_object in annotated_objects
            if is_development(annotated_object, development)
        ]
    return EvaluationSet(description.name, annotated_objects)


def choose_samples(one: EvaluationSet, limit: int | None, at_least: int = 0) -> list[Sample]:
    """Choose the samples of a set, and print how many there are.

    Args:
        one: The set.
        limit: Samples per kind; None takes all.
        at_least: Samples with a reference that each kind should have; missing ones are repeats.
    """
    samples, counts = enumerate_samples(one.annotated_objects)
    print(f"{one.name}: {len(one.annotated_objects)} objects, {counts}")
    chosen = limit_samples(samples, limit)
    if not at_least:
        return chosen
    finder = ReferenceFinder(one.annotated_objects)
    referenced = [sample for sample in chosen if finder.choose(sample, RIGHT)]
    repeated = with_repeats(referenced, at_least)
    print(
        f"{one.name}: {len(referenced)} samples have a reference, and {len(repeated) - len(referenced)} repeat them"
    )
    return repeated


def missing_tasks(
    sets: list[EvaluationSet],
    samples: list[list[Sample]],
    modes: list[Mode],
    done: set[tuple[str, str, str]],
) -> list[Task]:
    """The samples and modes that have no result yet.

    Args:
        sets: The sets.
        samples: Chosen samples of each set.
        modes: The requested modes.
        done: Keys of the records that exist.
    """
    tasks = []
    for number, one in enumerate(sets):
        for sample in samples[number]:
            missing = tuple(mode for mode in modes if (one.name, sample.key, mode.name) not in done)
            if missing:
                tasks.append(Task(number, sample, missing))
    return tasks


def select(records: list[Record], sets: list[EvaluationSet], samples: list[list[Sample]]) -> list[Record]:
    """Records of the requested samples. A folder may hold more, from an earlier run."""
    wanted = {(one.name, sample.key) for one, chosen in zip(sets, samples, strict=True) for sample in chosen}
    return [record for record in records if (record.set_name, record.sample) in wanted]


def report(folder: Path, records: list[Record], sets: list[EvaluationSet], max_clicks: int) -> None:
    """Write results.json, results.md and pictures, and print the table.

    Args:
        folder: Folder of the results.
        records: What was measured.
        sets: The sets, for the pictures.
        max_clicks: Largest number of clicks per sample.

    Raises:
        DataError: If there is no record.
    """
    if not records:
        raise DataError(
            "there is nothing to evaluate in these sets", hint="check --data, --development, --limit"
        )
    results = Results.of(records, max_clicks)
    write_results(folder, results)
    write_plots(folder, records, results.table, max_clicks)
    for one in sets:
        write_contact_sheet(folder / f"contact_sheet-{file_safe(one.name)}.png", records, one)
    print(as_markdown(results))


def changed_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of the predictor that were given on the command line."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(PredictorSettings)}
    return {name: value for name, value in given.items() if value is not None}


def add_predictor_switches(parser: argparse.ArgumentParser) -> None:
    """Add one option per field of `PredictorSettings`."""
    group = parser.add_argument_group(
        "predictor", "how the network is used; default: as the backend serves it (for s14 see below)"
    )
    for field in dataclasses.fields(PredictorSettings):
        served = getattr(SERVING, field.name)
        options: dict[str, Any] = {"type": type(served)}
        if isinstance(served, bool):
            options = {"action": argparse.BooleanOptionalAction}
        elif field.name == "resampling":
            options = {"choices": ("aligned", "area")}
        group.add_argument(
            f"--{field.name.replace('_', '-')}", default=None, help=f"s14: {served}", **options
        )


def parse_set(text: str) -> SetDescription:
    """Read a set's description. Raises ArgumentTypeError if the text is invalid."""
    try:
        return SetDescription.parse(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_parser() -> OneLineParser:
    """The parser of this command."""
    parser = command_parser("evaluate", __doc__, allow_abbrev=False)
    parser.add_argument("--data", type=parse_set, action="append", required=True, metavar="SET", help=HINT)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    add_weights(parser)
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["right", "none", "wrong"],
        help="kinds of references: right|none|positive|negative|wrong, or a mask that a reference gives before the first "
        "click: alone|nearest|prototype; then +refsN +polygonN +scaleF +jitter; "
        f"groups: {', '.join(MODE_GROUPS)}",
    )
    parser.add_argument(
        "--runtime", choices=("torch", "openvino"), default="torch", help="runtime of the network"
    )
    parser.add_argument("--limit", type=int, help="samples per kind and set, evenly spaced (default: all)")
    parser.add_argument(
        "--at-least",
        type=int,
        default=0,
        metavar="N",
        help="repeat samples with other references and clicks until each kind of a set has N (default: never)",
    )
    parser.add_argument("--max-clicks", type=int, default=20, help="clicks per sample (default: 20)")
    parser.add_argument(
        "--min-clicks", type=int, default=5, help="clicks to make even if the mask is already good"
    )
    parser.add_argument(
        "--development",
        type=float,
        metavar="SHARE",
        help="evaluate only this share of a train split, the one that training leaves out",
    )
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    add_threads(parser, "CPU threads of all workers together")
    add_predictor_switches(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if min(arguments.workers, arguments.max_clicks, arguments.min_clicks, arguments.limit or 1) < 1:
        parser.error("--workers, --max-clicks, --min-clicks and --limit start at 1")
    try:
        evaluate(arguments)
    except (ModelError, ValueError) as error:
        parser.error(str(error))

"""What clicks are worth with and without a reference: a robot annotates every part, connected pair of parts and whole
object of a set, in each mode. Run again with the same --out to go on after a kill; more samples, modes or sets may be
asked for then.

    python -m model evaluate --data SET [--data SET]... --out DIR [--modes MODE...] [--limit N]
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
from model.data.readers import HINT, SetDescription
from model.data.scenes import is_development
from model.errors import DataError, ModelError
from model.evaluation.metrics import summarise
from model.evaluation.modes import MODE_GROUPS, Mode, parse_modes
from model.evaluation.pictures import write_contact_sheet
from model.evaluation.records import Record, RecordFile
from model.evaluation.report import as_markdown, file_safe, write_plots, write_results
from model.evaluation.runner import ClickLimits, EvaluationSet, Task, run_tasks
from model.evaluation.samples import Sample, enumerate_samples, limit_samples
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings, serving_settings
from model.runtime.select import RuntimeName, with_runtime


@dataclass(frozen=True)
class PredictorFactory:
    """Makes a worker's predictor; crosses into its process. changes: settings that differ from the served ones."""

    weights: Path
    changes: dict[str, Any]
    threads: int
    runtime: RuntimeName = "torch"

    def __call__(self) -> RefCutPredictor:
        """Raises ModelError or ValueError when weights, settings and runtime do not work together."""
        torch.set_num_threads(self.threads)
        network = load_network(self.weights)
        settings = dataclasses.replace(serving_settings(network.config), **self.changes)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return RefCutPredictor(with_runtime(network.to(device), settings, self.runtime), settings)


def evaluate(arguments: argparse.Namespace) -> None:
    """Runs what is not yet in the folder of results, and writes tables and pictures of what was asked for."""
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
    samples = [choose_samples(one, arguments.limit) for one in sets]
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
    """What makes results comparable; a folder holds results of one such description only."""
    return {
        "weights": version_name(arguments.weights),
        "predictor": dataclasses.asdict(settings),
        "clicks": dataclasses.asdict(limits),
        "development": arguments.development,
    } | ({} if arguments.runtime == "torch" else {"runtime": arguments.runtime})


def read_set(description: SetDescription, development: float | None) -> EvaluationSet:
    """A set's scenes; with `development` only that share of them, which training leaves out too."""
    scenes = description.read()
    if development is not None:
        scenes = [scene for scene in scenes if is_development(scene, development)]
    return EvaluationSet(description.name, scenes)


def choose_samples(one: EvaluationSet, limit: int | None) -> list[Sample]:
    """What is to be run of a set, after printing how much there is."""
    samples, counts = enumerate_samples(one.scenes)
    print(f"{one.name}: {len(one.scenes)} objects, {counts}")
    return limit_samples(samples, limit)


def missing_tasks(
    sets: list[EvaluationSet],
    samples: list[list[Sample]],
    modes: list[Mode],
    done: set[tuple[str, str, str]],
) -> list[Task]:
    """The samples and modes without a result."""
    tasks = []
    for number, one in enumerate(sets):
        for sample in samples[number]:
            missing = tuple(mode for mode in modes if (one.name, sample.key, mode.name) not in done)
            if missing:
                tasks.append(Task(number, sample, missing))
    return tasks


def select(records: list[Record], sets: list[EvaluationSet], samples: list[list[Sample]]) -> list[Record]:
    """Records of the samples that were asked for; a folder may hold more, from an earlier run."""
    wanted = {(one.name, sample.key) for one, chosen in zip(sets, samples, strict=True) for sample in chosen}
    return [record for record in records if (record.set_name, record.sample) in wanted]


def report(folder: Path, records: list[Record], sets: list[EvaluationSet], max_clicks: int) -> None:
    """Writes results.json, results.md and pictures, and prints the table.

    Raises DataError when there is no record.
    """
    if not records:
        raise DataError(
            "there is nothing to evaluate in these sets", hint="check --data, --development, --limit"
        )
    table = summarise(records, max_clicks)
    write_results(folder, table, max_clicks)
    write_plots(folder, records, table, max_clicks)
    for one in sets:
        write_contact_sheet(folder / f"contact_sheet-{file_safe(one.name)}.png", records, one)
    print(as_markdown(table, max_clicks))


def changed_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The predictor's switches that were given on the command line."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(PredictorSettings)}
    return {name: value for name, value in given.items() if value is not None}


def add_predictor_switches(parser: argparse.ArgumentParser) -> None:
    """One switch for each field of `PredictorSettings`."""
    group = parser.add_argument_group(
        "predictor", "how the network is used; default: as the backend serves it"
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
    try:
        return SetDescription.parse(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_parser() -> OneLineParser:
    """The command line, as the module's docstring describes it."""
    parser = command_parser("evaluate", __doc__, allow_abbrev=False)
    parser.add_argument("--data", type=parse_set, action="append", required=True, metavar="SET", help=HINT)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    add_weights(parser)
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["right", "none", "wrong"],
        help="right|none|positive|negative|wrong, then +refsN +polygonN +scaleF +jitter; "
        f"groups: {', '.join(MODE_GROUPS)}",
    )
    parser.add_argument(
        "--runtime", choices=("torch", "openvino"), default="torch", help="what computes the network"
    )
    parser.add_argument("--limit", type=int, help="samples of each kind in a set, evenly spread; default all")
    parser.add_argument("--max-clicks", type=int, default=20)
    parser.add_argument("--min-clicks", type=int, default=5, help="go on so long though the mask is good")
    parser.add_argument(
        "--development",
        type=float,
        metavar="SHARE",
        help="only the share of a train split that training leaves out",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    add_threads(parser, "CPU threads of all workers together")
    add_predictor_switches(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when the input cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if min(arguments.workers, arguments.max_clicks, arguments.min_clicks, arguments.limit or 1) < 1:
        parser.error("--workers, --max-clicks, --min-clicks and --limit start at 1")
    try:
        evaluate(arguments)
    except (ModelError, ValueError) as error:
        parser.error(str(error))

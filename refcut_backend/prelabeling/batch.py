"""Label Studio asks for predictions without a click: when a task is opened, and for batches of tasks.

It waits for one answer with an entry for each task, in their order. An entry may be a list of predictions, so a task
without one gets an empty list: nothing is stored for it, and it is asked for again. (An empty prediction would be stored,
and shown as a tab of its own.)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.errors import RefCutError
from refcut_backend.logs import note
from refcut_backend.prelabeling.task import Prelabelled, TaskToPrelabel
from refcut_backend.settings import Settings

PrelabelWhen = Literal["off", "open", "batch"]


@dataclass(frozen=True)
class PrelabelRules:
    """when: "off"; "open": for requests about one task; "batch": for any number.

    Limits: whoever opened the task waits as long as Label Studio does; for a batch that gives up after 100 s.
    """

    when: PrelabelWhen = "off"
    open_limit_s: float = 10
    batch_limit_s: float = 90

    @classmethod
    def of(cls, settings: Settings) -> PrelabelRules:
        """As the settings say."""
        return cls(settings.prelabel, settings.prelabel_open_timeout_s, settings.prelabel_batch_timeout_s)

    @property
    def is_on(self) -> bool:
        """Whether requests without a click are computed at all."""
        return self.when != "off"

    def limit_s(self, tasks: int) -> float | None:
        """Time for a request about so many tasks; None when it is not computed."""
        if self.when == "off" or (tasks > 1 and self.when == "open"):
            return None
        return self.open_limit_s if tasks == 1 else self.batch_limit_s


NAMED_IN_LOG = 20
SEVERAL_REFUSED = "prelabel_open_only"


class PrelabelsTasks(Protocol):
    """`TaskPrelabeller`."""

    def at_once(self) -> int: ...

    def prelabel(self, task: TaskToPrelabel, limit_s: float) -> Prelabelled: ...


@dataclass(frozen=True)
class BatchReply:
    """results: one entry for each task. reasons: why tasks have none, by code."""

    results: list[Any]
    reasons: dict[str, int]


class BatchPrelabeller:
    """Answers such requests. Never raises."""

    def __init__(self, prelabeller: PrelabelsTasks, rules: PrelabelRules) -> None:
        self._prelabeller = prelabeller
        self._rules = rules

    @property
    def is_on(self) -> bool:
        """Whether requests without a click are computed at all."""
        return self._rules.is_on

    def answer(self, tasks: Sequence[TaskToPrelabel]) -> BatchReply:
        """What is found on each task within the limit, in the order of the tasks."""
        limit_s = self._rules.limit_s(len(tasks))
        if limit_s is None:
            return BatchReply([[] for _ in tasks], {SEVERAL_REFUSED: len(tasks)})
        deadline = time.monotonic() + limit_s
        with ThreadPoolExecutor(self._prelabeller.at_once(), "prelabel") as threads:
            outcomes = list(threads.map(lambda task: self._one(task, deadline), tasks))
        failed = [
            (task.task_id, said) for task, said in zip(tasks, outcomes, strict=True) if isinstance(said, str)
        ]
        note(prelabelled=len(tasks) - len(failed), failed=failed[:NAMED_IN_LOG])
        results = [[] if isinstance(said, str) else said for said in outcomes]
        return BatchReply(results, dict(Counter(code for _, code in failed)))

    def _one(self, task: TaskToPrelabel, deadline: float) -> dict[str, Any] | str:
        """A prediction, or the code of why there is none."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return "timeout"
        try:
            return self._prelabeller.prelabel(task, left_s).prediction
        except RefCutError as error:
            return error.code
        except SQLAlchemyError:
            return "database"

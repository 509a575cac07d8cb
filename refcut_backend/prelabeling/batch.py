"""Answers Label Studio's requests for predictions without a click: when a task is opened, and for batches of tasks.

Label Studio waits for one answer with an entry for each task, in their order. An entry may be a list of predictions. A
task without a prediction gets an empty list: Label Studio then stores nothing and asks again. (It would store an empty
prediction and show it as a tab.)
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
NAMED_IN_LOG = 20
"""How many tasks without a prediction a log line names."""
SEVERAL_REFUSED = "prelabel_open_only"
"""Reason code for a batch of tasks if only single tasks are pre-labelled."""


@dataclass(frozen=True)
class PrelabelRules:
    """Which requests are answered, and within what time.

    Attributes:
        when: "off"; "open" for requests about one task; "batch" for any number of tasks.
        open_limit_s: Seconds for one task. An annotator waits for it.
        batch_limit_s: Seconds for a batch. Label Studio gives up after 100 s.
    """

    when: PrelabelWhen = "off"
    open_limit_s: float = 10
    batch_limit_s: float = 90

    @classmethod
    def of(cls, settings: Settings) -> PrelabelRules:
        """Take the rules from the settings."""
        return cls(settings.prelabel, settings.prelabel_open_timeout_s, settings.prelabel_batch_timeout_s)

    @property
    def is_on(self) -> bool:
        """Whether requests without a click are computed at all."""
        return self.when != "off"

    def limit_s(self, tasks: int) -> float | None:
        """Return the seconds for a request about `tasks` tasks; None if it is not answered."""
        if self.when == "off" or (tasks > 1 and self.when == "open"):
            return None
        return self.open_limit_s if tasks == 1 else self.batch_limit_s


class Prelabeller(Protocol):
    """Pre-labels one task: `task.TaskPrelabeller`."""

    def at_once(self) -> int:
        """Return how many tasks to begin together."""

    def prelabel(self, task: TaskToPrelabel, limit_s: float) -> Prelabelled:
        """Return a task's prediction. Raise RefCutError if there is none within the limit."""


@dataclass(frozen=True)
class BatchReply:
    """The answer to a request for predictions.

    Attributes:
        results: One entry for each task: a prediction, or an empty list.
        reasons: Reason code to the number of tasks without a prediction.
    """

    results: list[Any]
    reasons: dict[str, int]


class BatchPrelabeller:
    """Answers requests for predictions. Never raises.

    Args:
        prelabeller: Pre-labels one task.
        rules: Which requests are answered.
    """

    def __init__(self, prelabeller: Prelabeller, rules: PrelabelRules) -> None:
        self._prelabeller = prelabeller
        self._rules = rules

    @property
    def is_on(self) -> bool:
        """Whether requests without a click are computed at all."""
        return self._rules.is_on

    def answer(self, tasks: Sequence[TaskToPrelabel]) -> BatchReply:
        """Pre-label the tasks within the limit, in their order."""
        limit_s = self._rules.limit_s(len(tasks))
        if limit_s is None:
            return BatchReply([[] for _ in tasks], {SEVERAL_REFUSED: len(tasks)})
        deadline = time.monotonic() + limit_s
        with ThreadPoolExecutor(self._prelabeller.at_once(), "prelabel") as threads:
            outcomes = list(threads.map(lambda task: self._one(task, deadline), tasks))
        failed = [
            (task.task_id, one) for task, one in zip(tasks, outcomes, strict=True) if isinstance(one, str)
        ]
        note(prelabelled=len(tasks) - len(failed), failed=failed[:NAMED_IN_LOG])
        results = [[] if isinstance(one, str) else one for one in outcomes]
        return BatchReply(results, dict(Counter(code for _, code in failed)))

    def _one(self, task: TaskToPrelabel, deadline: float) -> dict[str, Any] | str:
        """A prediction, or the reason code if there is none."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return "timeout"
        try:
            return self._prelabeller.prelabel(task, left_s).prediction
        except RefCutError as error:
            return error.code
        except SQLAlchemyError:
            return "database"

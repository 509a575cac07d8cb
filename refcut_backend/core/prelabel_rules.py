"""When Label Studio gets masks that nobody clicked, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

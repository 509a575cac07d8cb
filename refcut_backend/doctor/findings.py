"""What a check found, and running checks so that one that fails does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from model.errors import ModelError
from refcut_backend.errors import RefCutError

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """state: "ok", "note" (works, but know it) or "wrong". advice: what to do, empty when all is well."""

    subject: str
    state: State
    what: str
    advice: str = ""


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """All findings in order. What a check raises is a finding too, and ends that check alone.

    checks: (subject, check) pairs; the subject is used for what a check raises.
    """
    for subject, check in checks:
        try:
            yield from check()
        except (RefCutError, ModelError) as error:
            yield Finding(subject, "wrong", error.message, error.hint)
        except Exception as error:
            # Its text may hold whatever was asked or answered, secrets included.
            yield Finding(
                subject,
                "wrong",
                f"the check failed unexpectedly ({type(error).__name__})",
                "please report this",
            )

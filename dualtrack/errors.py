"""The exception tree: what could not be done, and what an operator does next.

Exceptions say "could not"; what to do about it is a value from `core.verdict`. Adapters rename foreign exceptions
where they arise and keep the cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class DualtrackError(Exception):
    """Anything that dualtrack itself reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the configuration: where, what was found, why it is wrong, how to mend it."""

    path: str
    value: str
    message: str
    fix: str

    def __str__(self) -> str:
        found = f" (found {self.value})" if self.value else ""
        return f"{self.path}: {self.message}{found}. {self.fix}"


class ConfigError(DualtrackError):
    """The configuration cannot be used; carries every problem found. Exit code 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StartError(DualtrackError):
    """The process cannot start here: port taken, store locked or not writable. One line, with the next step."""


class StoreLockedError(StartError):
    """Another process has the journal open: a running proxy, as a rule."""


class BackendError(DualtrackError):
    """A backend did not do what was asked."""

    def __init__(self, backend: str, operation: str, cause: str, hint: str = "") -> None:
        self.backend = backend
        self.operation = operation
        self.cause = cause
        self.hint = hint
        super().__init__(f"{backend}: {operation}: {cause}" + (f" ({hint})" if hint else ""))


class UnreachableError(BackendError):
    """No usable answer: connection, time-out, 408, 429, 5xx. `sent` says whether the request may have arrived.

    `silent` is for how many seconds it was waited for: whoever was asked to write may be at work on it still.
    """

    def __init__(
        self,
        backend: str,
        operation: str,
        cause: str,
        hint: str = "",
        *,
        sent: bool = True,
        silent: float = 0.0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(backend, operation, cause, hint)
        self.sent = sent
        self.silent = silent
        self.retry_after = retry_after


class RejectedError(BackendError):
    """The backend answered, and the answer is no; asking again changes nothing."""


class UnauthorizedError(BackendError):
    """Signing in failed, or a fresh token was refused."""


class JournalError(DualtrackError):
    """The durable store could not keep something."""


class JournalFullError(JournalError):
    """The journal is at its configured bound, or its disk is full."""


class RegistryEntryError(JournalError):
    """Somebody tried to journal a model registry call; two registries cannot be kept in step (P6)."""


class SpoolError(DualtrackError):
    """A file could not be kept on this machine's disk."""


class SpoolFullError(SpoolError):
    """The spool is at its configured bound, or its disk is full."""

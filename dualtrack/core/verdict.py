"""Outcome + attempt + now → what becomes of an entry. Policy is this one table.

    status / trouble                verdict
    2xx                             Delivered
    no answer, 408, 425, 429, 5xx   Retry  (Retry-After honoured; jittered exponential waits)
    401, 407, login redirects       Retry, and the backend is paused: a token is wrong, not the entry
    404                             LookAgain: is it the thing, or something in the request, that is not there?
    other 4xx on a batch of many    Bisect: find the item that is refused
    other 4xx                       LookAgain: perhaps it is already so (facts section 4), else Park
    anything else (1xx, 3xx, HTML)  Retry: an address is wrong, not the entry

`LookAgain` costs a read: what was refused may be so already. Nothing here knows an event loop or a clock: the
random number and the attempt count come in.
"""

from dataclasses import dataclass
from typing import TypeAlias

from dualtrack.core.exchange import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Waits between attempts in seconds; `give_up_after` seconds since the write was acknowledged, or never."""

    wait_min: float = 1.0
    wait_max: float = 300.0
    give_up_after: float | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again `wait` seconds from now. `is_backend` says that the backend as a whole is in trouble."""

    wait: float
    reason: str
    is_backend: bool = True
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAgain:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisect:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Park:
    reason: str


Verdict: TypeAlias = Delivered | Retry | LookAgain | Bisect | Park

RETRIED = frozenset({408, 425, 429})
UNAUTHORIZED = frozenset({401, 407})


def wait_before(attempt: int, policy: RetryPolicy, chance: float, retry_after: float | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1): full jitter above half of the exponential.

    `chance` is a random number in [0, 1). A server's own Retry-After is a lower bound, itself bounded by an hour.
    """
    ceiling = min(policy.wait_max, policy.wait_min * 2.0 ** min(attempt - 1, 30))
    wait = ceiling * (0.5 + chance / 2.0)
    return max(wait, min(retry_after or 0.0, 3600.0))


def judge(answer: Answer, *, attempt: int, items: int, age: float, policy: RetryPolicy, chance: float) -> Verdict:
    """Decide about one answered attempt. `items` is how many items a batch held (1 for anything else)."""
    reason = describe(answer)
    status = answer.status
    if answer.is_success:
        return Delivered()
    if status in RETRIED or status >= 500 or status in UNAUTHORIZED or status < 400:
        return retry(reason, attempt, age, policy, chance, answer.retry_after)
    if items > 1:
        return Bisect(reason=reason)
    return LookAgain(reason=reason)


def retry(
    reason: str,
    attempt: int,
    age: float,
    policy: RetryPolicy,
    chance: float,
    retry_after: float | None = None,
) -> Retry | Park:
    """Decide about an attempt that met trouble of the backend or of the way to it."""
    if policy.give_up_after is not None and age >= policy.give_up_after:
        return Park(reason=f"given up after {age:.0f} s: {reason}")
    wait = wait_before(attempt, policy, chance, retry_after)
    return Retry(wait=wait, reason=reason, retry_after=retry_after)


def describe(answer: Answer) -> str:
    """Name an answer in one line for people: status, code and the backend's own words, bounded."""
    words = " ".join(part for part in (answer.error_code, answer.message) if part)
    return f"HTTP {answer.status} {words}".strip()[:500]


def lacks_route(answer: Answer) -> bool:
    """Say whether a backend does not know the endpoint at all: Azure ML's empty 404, or MLflow's web page."""
    return answer.status == 404 and answer.error_code in {"", "ENDPOINT_NOT_FOUND"}

"""What goes wrong, as data: rules in, one decision per call out.

`decide` is pure: rules, how often each has matched so far, and the call come in; what to do and the new counts go out.
It never sleeps or closes anything; the façade in `tracking` does what the decision says. Delays of all rules that apply
add up; of the other actions the first one wins. Rules travel as JSON (`parse_rules`, `to_document`), so that a test can
set them in an emulator that runs in another process.

    {"method": "POST", "path": "runs/create$", "nth": 1, "action": {"kind": "drop_after"}}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

JSON: TypeAlias = Any


class Body(StrEnum):
    """What the body of an answered fault looks like; `json` is in the backend's own error shape."""

    JSON = "json"
    HTML = "html"
    EMPTY = "empty"
    XML = "xml"  # as storage behind signed URLs words it: 403 with `AuthenticationFailed` is one that has ended


class Spoilt(StrEnum):
    """What becomes of the answer to work that was done (see `spoilt`)."""

    TRUNCATED = "truncated"
    SLOW = "slow"
    EMPTY = "empty"
    TEXT = "text"
    HTML = "html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DropBefore:
    """Close the connection, or with `resets` break it (TCP RST); nothing was done."""

    resets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DropAfter:
    """Do the work, then close or break the connection: the write happened and the answer is lost."""

    resets: bool = False


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answer this instead of doing the work. `retry_after` is sent as it stands: seconds or an HTTP date."""

    status: int
    body: Body = Body.JSON
    code: str = ""
    retry_after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoil:
    """Do the work, then answer in a way that tells little or nothing of it. `seconds` is for a slow one, in all."""

    body: Spoilt
    seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Do the part of a log-batch call that is about `keeps`, then refuse it: facts B7, "may have stored a part"."""

    status: int = 500
    keeps: str = "metrics"
    code: str = ""


Action: TypeAlias = Delay | DropBefore | DropAfter | BlackHole | Refuse | Spoil | Partial
KINDS: dict[str, type[Action]] = {
    "delay": Delay,
    "drop_before": DropBefore,
    "drop_after": DropAfter,
    "black_hole": BlackHole,
    "refuse": Refuse,
    "spoil": Spoil,
    "partial": Partial,
}
BODIES: dict[type[Action], type[Body | Spoilt]] = {Refuse: Body, Spoil: Spoilt}
NAMES: dict[type[Action], str] = {action: name for name, action in KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which calls (`path` is searched as a regular expression), which of them, and what becomes of them.

    `nth` is the one call with that number, from 1; `first` the calls up to that number; `every` those whose number it
    divides; none of them means every call.
    """

    action: Action
    method: str = ""
    path: str = ""
    nth: int = 0
    first: int = 0
    every: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("", method) and re.search(self.path, path) is not None

    def applies(self, count: int) -> bool:
        """Whether the rule acts on its `count`-th match."""
        if self.nth:
            return count == self.nth
        if self.every:
            return count % self.every == 0
        return not self.first or count <= self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    delay: float = 0.0
    action: DropBefore | DropAfter | BlackHole | Refuse | Spoil | Partial | None = None
    counts: tuple[int, ...] = field(default=())


def decide(rules: Sequence[Rule], counts: Sequence[int], method: str, path: str) -> Decision:
    """Judge one call; `counts` says how many earlier calls each rule matched."""
    matched = [rule.matches(method, path) for rule in rules]
    now = tuple(count + hit for count, hit in zip(counts, matched, strict=True))
    actions = [rule.action for rule, hit, count in zip(rules, matched, now, strict=True) if hit and rule.applies(count)]
    return Decision(
        delay=sum(action.seconds for action in actions if isinstance(action, Delay)),
        action=next((action for action in actions if not isinstance(action, Delay)), None),
        counts=now,
    )


def parse_rules(document: JSON) -> tuple[Rule, ...]:
    """Read one rule or a list of them; raise ValueError that says what is wrong."""
    return tuple(_parse_rule(item) for item in (document if isinstance(document, list) else [document]))


def to_document(rules: Sequence[Rule]) -> list[dict[str, JSON]]:
    """Write rules as `parse_rules` reads them."""
    return [asdict(rule) | {"action": {"kind": name_of(rule.action), **asdict(rule.action)}} for rule in rules]


def name_of(action: Action) -> str:
    return NAMES[type(action)]


def _parse_rule(item: JSON) -> Rule:
    given = _checked(item, {field.name for field in fields(Rule)}, "a rule")
    rule = Rule(**{**given, "action": _parse_action(given.get("action"))})
    if sum(map(bool, (rule.nth, rule.first, rule.every))) > 1:
        raise ValueError("a rule has nth, first or every, not both")
    try:
        re.compile(rule.path)
    except re.error as exc:
        raise ValueError(f"path is not a regular expression: {exc}") from exc
    return rule


def _parse_action(item: JSON) -> Action:
    kind = item.get("kind") if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"action needs a kind: one of {', '.join(KINDS)}")
    action = KINDS[kind]
    given = _checked({key: value for key, value in item.items() if key != "kind"}, _names(action), kind)
    if "body" in given:
        given = {**given, "body": BODIES[action](given["body"])}
    try:
        return action(**given)
    except TypeError as exc:
        raise ValueError(f"{kind}: {exc}") from exc


def _names(action: type[Action]) -> set[str]:
    return {field.name for field in fields(action)}


def _checked(item: JSON, known: set[str], what: str) -> Mapping[str, JSON]:
    if not isinstance(item, dict):
        raise ValueError(f"{what} is a JSON object")  # noqa: TRY004 - bad input is a ValueError here, of any kind
    if unknown := sorted(set(item) - known):
        raise ValueError(f"{what} does not know {', '.join(unknown)}")
    return item

"""The fault decision: which call a rule hits, and what it does then."""

from typing import Any

import pytest

from dualtrack.emulators.faults import (
    Action,
    BlackHole,
    Body,
    Delay,
    DropAfter,
    DropBefore,
    Partial,
    Refuse,
    Rule,
    Spoil,
    Spoilt,
    decide,
    parse_rules,
    to_document,
)

DROP = DropBefore()


def played(rule: Rule, calls: int) -> list[Action | None]:
    """Decide a row of calls to runs/create."""
    counts: tuple[int, ...] = (0,)
    actions: list[Action | None] = []
    for _ in range(calls):
        decision = decide((rule,), counts, "POST", "/api/2.0/mlflow/runs/create")
        counts = decision.counts
        actions.append(decision.action)
    return actions


@pytest.mark.parametrize(
    ("rule", "hits"),
    [
        (Rule(action=DROP), [1, 2, 3, 4]),
        (Rule(action=DROP, nth=2), [2]),
        (Rule(action=DROP, first=3), [1, 2, 3]),
        (Rule(action=DROP, every=2), [2, 4]),
        (Rule(action=DROP, method="POST", path="runs/create$"), [1, 2, 3, 4]),
        (Rule(action=DROP, method="GET"), []),
        (Rule(action=DROP, path="runs/update"), []),
    ],
)
def test_a_rule_hits_the_calls_that_it_names(rule: Rule, hits: list[int]) -> None:
    actions = played(rule, 4)

    assert [number for number, action in enumerate(actions, start=1) if action == DROP] == hits


def test_delays_add_up_and_the_first_other_action_wins() -> None:
    rules = [
        Rule(action=Delay(seconds=1)),
        Rule(action=DropAfter()),
        Rule(action=Delay(seconds=2)),
        Rule(action=BlackHole()),
    ]

    decision = decide(rules, (0, 0, 0, 0), "GET", "/")

    assert decision.delay == 3
    assert decision.action == DropAfter()
    assert decision.counts == (1, 1, 1, 1)


def test_a_rule_counts_only_the_calls_that_it_matches() -> None:
    rules = [Rule(action=DROP, path="create"), Rule(action=DROP, path="update")]

    assert decide(rules, (4, 5), "POST", "/runs/update").counts == (4, 6)


@pytest.mark.parametrize(
    "action",
    [
        Delay(seconds=0.5),
        DropBefore(),
        DropAfter(resets=True),
        BlackHole(),
        Refuse(status=503, body=Body.HTML, code="X", retry_after="7"),
        Spoil(body=Spoilt.SLOW, seconds=2),
        Partial(status=400, keeps="tags"),
    ],
)
def test_rules_survive_the_way_through_json(action: Action) -> None:
    rules = (Rule(action=action, method="POST", path="runs/.*", nth=2), Rule(action=action, first=3))

    assert parse_rules(to_document(rules)) == rules


def test_one_rule_needs_no_list() -> None:
    assert parse_rules({"action": {"kind": "black_hole"}}) == (Rule(action=BlackHole()),)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("drop", "a rule is a JSON object"),
        ({}, "action needs a kind"),
        ({"action": {"kind": "explode"}}, "action needs a kind"),
        ({"action": {"kind": "delay"}}, "delay: .*seconds"),
        ({"action": {"kind": "delay", "seconds": 1, "jitter": 2}}, "delay does not know jitter"),
        ({"action": {"kind": "refuse", "status": 500, "body": "pdf"}}, "pdf"),
        ({"action": {"kind": "spoil", "body": "json"}}, "json"),
        ({"action": {"kind": "drop_before"}, "each": 2}, "a rule does not know each"),
        ({"action": {"kind": "drop_before"}, "nth": 1, "first": 2}, "not both"),
        ({"action": {"kind": "drop_before"}, "path": "("}, "not a regular expression"),
    ],
)
def test_a_wrong_rule_is_refused_with_the_reason(document: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_rules(document)

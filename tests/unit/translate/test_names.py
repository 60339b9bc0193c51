"""Experiment names another backend takes: stable, bounded, and never one for two."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.translate.names import DEFAULT_EXPERIMENT_ID, NameRule, names_for, qualify, translate_name

KEEP = NameRule()
LAST = NameRule(rule="last-segment")
REPLACE = NameRule(rule="replace")
TEMPLATE = NameRule(rule="template", template="mirror-{name}-of-a")
PATH = NameRule(is_path=True)


@pytest.mark.parametrize(
    ("rule", "name", "translated"),
    [
        (KEEP, "/Users/ann/churn", "/Users/ann/churn"),
        (LAST, "/Users/ann/churn", "churn"),
        (LAST, "/Users/ann/churn model/", "churn-model"),
        (LAST, "churn", "churn"),
        (LAST, "/", "experiment"),
        (REPLACE, "/Users/ann/churn", "Users-ann-churn"),
        (REPLACE, "a b  c_d-e.f", "a-b-c_d-e-f"),
        (REPLACE, "été", "t"),
        (REPLACE, "漢字", "experiment"),
        (TEMPLATE, "/Users/ann/churn", "mirror-Users-ann-churn-of-a"),
        (PATH, "/Workspace/Users/ann/churn", "/Users/ann/churn"),
        (PATH, "/Users/ann/churn", "/Users/ann/churn"),
        (PATH, "/Workspaces/churn", "/Workspaces/churn"),
        (KEEP, "/Workspace/Users/ann/churn", "/Workspace/Users/ann/churn"),
    ],
)
def test_each_rule(rule: NameRule, name: str, translated: str) -> None:
    assert translate_name(name, rule) == translated


def test_the_default_experiment_has_a_name_of_its_own() -> None:
    """`0` on MLflow is nobody's experiment on a workspace."""
    rule = NameRule(rule="replace", default_experiment="from-mlflow")

    assert translate_name("Default", rule, DEFAULT_EXPERIMENT_ID) == "from-mlflow"
    assert translate_name("Default", rule, "1") == "Default"
    assert translate_name("Default", REPLACE, DEFAULT_EXPERIMENT_ID) == "Default"


@given(st.text(max_size=600), st.sampled_from([LAST, REPLACE]))
def test_a_plain_name_is_one_that_azure_ml_takes(name: str, rule: NameRule) -> None:
    """Letters, digits, `_` and `-`, at most 255 of them even when qualified."""
    translated = translate_name(name, rule)

    assert re.fullmatch(r"[A-Za-z0-9_-]+", translated)
    assert len(qualify(translated, "databricks", "1234567890123456", name)) <= 255
    assert translate_name(name, rule) == translated


def test_long_names_that_differ_at_the_end_stay_two() -> None:
    one, other = (translate_name("x" * 500 + end, REPLACE) for end in "ab")

    assert one != other
    assert len(one) == len(other) == 240


ORIGINALS = st.tuples(st.text(max_size=9), st.text(max_size=9), st.text(max_size=20))


@given(ORIGINALS, ORIGINALS)
def test_qualified_names_tell_originals_apart(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Two experiments whose translated names collide never share one: those of two primaries do not, either."""
    assert (qualify("same", *one) == qualify("same", *other)) == (one == other)
    assert qualify("same", *one).startswith("same-")


def test_an_experiment_may_be_called_as_the_rule_says_or_qualified() -> None:
    """Each primary and each experiment has a qualified name of its own, the same at every attempt."""
    rules = [NameRule(source=source) for source in ("a", "a", "c")]
    first, again, elsewhere = (names_for("churn", rule, "7") for rule in rules)

    assert first == again
    assert {names[0] for names in (first, elsewhere, names_for("churn", rules[0], "8"))} == {"churn"}
    assert len({names[1] for names in (first, elsewhere, names_for("churn", rules[0], "8"))}) == 3
    assert names_for("churn", NameRule(qualifies=False), "7") == ("churn",)

"""The alerts that are shipped: well formed, proven on recorded series by `promtool`, and each with a runbook."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "prometheus"
RULES = SHIPPED / "dualtrack.rules.yml"
RECORDED = Path(__file__).with_name("rules_test.yml")

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=[str(alert["alert"]) for alert in ALERTS])


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    found = tool("promtool", "prometheus")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


# --- what is shipped ------------------------------------------------------------------------------------------------


def test_the_configuration_and_its_rules_are_well_formed() -> None:
    for kind, path in (("config", SHIPPED / "prometheus.yml"), ("rules", RULES)):
        done = promtool("check", kind, path)

        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_fires_when_it_must_and_only_then() -> None:
    done = promtool("test", "rules", RECORDED)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_lists_the_alerts() -> None:
    page = (SHIPPED / "README.md").read_text()
    rows = re.findall(r"^\| (Dualtrack\w+) \| .* \| (critical|warning) \|$", page, re.MULTILINE)

    assert rows == [(alert["alert"], alert["labels"]["severity"]) for alert in ALERTS]


# --- what is recorded -----------------------------------------------------------------------------------------------


def recorded_of(alert: dict[str, Any]) -> dict[str, Any]:
    """The recorded series of one alert, and what is expected of it."""
    (found,) = [block for block in yaml.safe_load(RECORDED.read_text())["tests"] if block["name"] == alert["alert"]]
    block: dict[str, Any] = found
    return block


@each_alert
def test_every_alert_is_watched_before_during_and_after(alert: dict[str, Any]) -> None:
    checks = recorded_of(alert)["alert_rule_test"]

    assert {check["alertname"] for check in checks} == {alert["alert"]}
    assert ["exp_alerts" in check for check in (checks[0], checks[-1])] == [False, False]
    assert any("exp_alerts" in check for check in checks)


def bound(alert: dict[str, Any], *, factor: float) -> dict[str, Any]:
    """The same alert with another bound; where there is none to scale, with the next best mistake."""
    if alert["expr"].startswith("absent("):
        return {**alert, "expr": "absent(up) == 1" if factor < 1 else alert["expr"].replace("== 1", "> 1")}
    left, operator, number = alert["expr"].strip().rsplit(" ", 2)
    if float(number):
        instead = f"> {float(number) * factor}"
    elif factor < 1:
        instead = ">= 0"
    else:
        instead = "< 0" if operator == "==" else "> 1.5"
    return {**alert, "expr": f"{left} {instead}"}


def wait(alert: dict[str, Any], *, minutes: int) -> dict[str, Any]:
    """The same alert, raised so much later."""
    return {**alert, "for": f"{int(alert['for'].removesuffix('m')) + minutes}m"}


SLIPS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "a lower bound": lambda alert: bound(alert, factor=0.9),
    "a higher bound": lambda alert: bound(alert, factor=1.5),
    "a minute too soon": lambda alert: wait(alert, minutes=-1) if "for" in alert else None,
    "a minute too late": lambda alert: wait(alert, minutes=1) if "for" in alert else None,
}


@each_alert
def test_a_slip_in_a_rule_is_noticed(alert: dict[str, Any], tmp_path: Path) -> None:
    """The recorded series tell each rule from its neighbours, so the file above proves what it says."""
    for said, slip in SLIPS.items():
        changed = slip(alert)
        if changed is None:
            continue
        (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dualtrack", "rules": [changed]}]}))
        recorded = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [recorded_of(alert)]}
        (tmp_path / "test.yml").write_text(yaml.safe_dump(recorded))
        done = promtool("test", "rules", tmp_path / "test.yml")

        assert done.returncode == 1, f"{alert['alert']} with {said} passes: {changed}"
        assert "FAILED" in done.stdout + done.stderr


# --- what a person does about it ------------------------------------------------------------------------------------


def runbooks() -> dict[str, str]:
    """The sections of the README's chapter, by their titles."""
    chapter = (ROOT / "README.md").read_text().partition("\n## Runbooks\n")[2].partition("\n## ")[0]
    _, *sections = chapter.split("\n### ")
    return {title: text for title, _, text in (section.partition("\n") for section in sections)}


def test_there_is_a_runbook_for_every_alert_and_no_other() -> None:
    assert list(runbooks()) == [alert["alert"] for alert in ALERTS]


@each_alert
def test_a_notification_leads_to_the_runbook_and_its_first_command(alert: dict[str, Any]) -> None:
    """`command` is what the section's first shell block begins with; `tests/acceptance/test_readme.py` tries it."""
    notes, text = alert["annotations"], runbooks()[alert["alert"]]
    first = re.search(r"```bash\n(dualtrack [^\n]+)\n", text)

    assert set(notes) == {"summary", "description", "runbook", "command"}
    assert notes["runbook"] == f"README.md#{alert['alert'].lower()}"
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert first is not None
    assert first[1] == notes["command"]

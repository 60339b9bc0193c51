"""What the demo says and how it ends, without starting anything."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from dualtrack.demo import demo
from dualtrack.demo.compare import Comparison, Difference, ModelVersion, Registry, RunComparison
from dualtrack.demo.demo import Report, run_demo
from dualtrack.errors import StartError

RUN = RunComparison(name="a", primary_id="p", secondary_id="s", params=1, tags=1, metrics=1, points=3, differences=())
VERSION = ModelVersion(name="m", version="1", run_id="p", source="runs:/p/model")
EMPTY = Registry(models=(), versions=())
REPORT = Report(
    comparison=Comparison(primary_experiment_id="1", secondary_experiment_id="2", runs=(RUN,), differences=()),
    registry=Registry(models=("m",), versions=(VERSION,)),
    other_registry=EMPTY,
    is_drained=True,
)
OTHER = Difference(kind="tag", key="x", primary="1", secondary="2")


def test_equal_says_what_stands_where() -> None:
    assert REPORT.is_equal
    assert demo._sentence(REPORT).startswith("Equal: 1 runs with 3 metric points")


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, comparison=replace(REPORT.comparison, differences=(OTHER,))),
        replace(REPORT, comparison=replace(REPORT.comparison, runs=())),
        replace(REPORT, registry=EMPTY),
        replace(REPORT, other_registry=REPORT.registry),
        replace(REPORT, is_drained=False),
    ],
)
def test_anything_else_is_different(report: Report) -> None:
    assert not report.is_equal
    assert demo._sentence(report).startswith("Different: ")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (StartError("no [flask]"), 3),
        (demo.TrainingError("failed"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_trouble_has_its_exit_code_and_its_reason(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    trouble: BaseException,
    code: int,
) -> None:
    def fail() -> None:
        raise trouble

    monkeypatch.setattr(demo, "require_mlflow", fail)

    assert run_demo(keep=False, json=False, directory=tmp_path / "made") == code
    assert str(trouble) in capsys.readouterr().out


def test_sigterm_ends_the_demo_as_an_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(demo, "require_mlflow", lambda: signal.raise_signal(signal.SIGTERM))

    assert run_demo(keep=False, json=True, directory=tmp_path) == 130
    assert signal.getsignal(signal.SIGTERM) is before

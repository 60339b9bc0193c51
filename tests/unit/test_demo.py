"""What the demo says and how it ends, without starting anything."""

import io
import signal
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from dualtrack.demo import demo
from dualtrack.demo.compare import Comparison, Difference, Loss, ModelComparison, ModelVersion, Registry, RunComparison
from dualtrack.demo.demo import run_demo
from dualtrack.demo.report import Report, document, sentence, show
from dualtrack.errors import StartError

RUN = RunComparison(
    name="a",
    primary_id="p",
    secondary_id="s",
    params=1,
    tags=1,
    metrics=1,
    points=3,
    files=2,
    file_bytes=1500,
    differences=(),
)
MODEL = ModelComparison(
    name="m",
    primary_id="m-p",
    secondary_id="m-s",
    params=1,
    tags=1,
    points=0,
    files=7,
    file_bytes=20,
    differences=(),
)
VERSION = ModelVersion(name="m", version="1", run_id="p", source="runs:/p/model")
EMPTY = Registry(models=(), versions=())
REPORT = Report(
    comparison=Comparison(
        primary_experiment_id="1", secondary_experiment_id="2", runs=(RUN,), models=(MODEL,), differences=()
    ),
    registry=Registry(models=("m",), versions=(VERSION,)),
    other_registry=EMPTY,
    is_drained=True,
)
OTHER = Difference(kind="tag", key="x", primary="1", secondary="2")


def with_owners(run: RunComparison, model: ModelComparison) -> Report:
    return replace(REPORT, comparison=replace(REPORT.comparison, runs=(run,), models=(model,)))


def shown(report: Report, width: int = 80) -> list[str]:
    """The lines of the tables, as a terminal of that width shows them."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(report, "/Shared/x", console)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_equal_says_what_stands_where() -> None:
    assert REPORT.is_equal
    assert sentence(REPORT).startswith(
        "Equal: 1 runs with 3 metric points, 1 logged model and 9 files (1,520 bytes) stand on both"
    )


def test_recorded_losses_are_excepted_counted_and_listed_with_their_reasons() -> None:
    losses = (
        Loss(key="run:p", kind="param", item="beta", reason="over_limit", detail="a run takes 1 params"),
        Loss(key="run:p", kind="param", item="[bold]alpha", reason="over_limit"),
    )
    model_loss = Loss(key="model:m-p", kind="model", item="", reason="no_logged_models")
    general = Loss(key="experiment:1", kind="tag", item="goal", reason="shortened")
    files = replace(MODEL, secondary_id="s/classifier", losses=(model_loss,))
    report = with_owners(replace(RUN, losses=losses), files)
    report = replace(report, comparison=replace(report.comparison, losses=(general,)))
    lines = shown(report, 100)

    assert report.is_equal
    assert sentence(report).startswith("Equal except for 4 recorded losses, listed: 1 runs with 3 metric points")
    assert "a p s 1 1 1 3 but 2 lost" in lines
    assert "run a p s 2 1,500 yes" in lines
    assert "model m m-p files of s 7 20 but 1 lost" in lines
    assert lines[lines.index("run a: param over_limit, 2") + 1] == "[bold]alpha, beta"
    assert lines[lines.index("model m: model no_logged_models, 1") + 1] == "the whole"
    assert lines[lines.index("experiment:1: tag shortened, 1") + 1] == "goal"
    assert orjson.loads(orjson.dumps(document(report, {})))["losses"][1] == {
        "key": "run:p",
        "kind": "param",
        "item": "beta",
        "reason": "over_limit",
        "detail": "a run takes 1 params",
    }


def test_a_difference_beside_recorded_losses_is_different() -> None:
    loss = Loss(key="run:p", kind="tag", item="y", reason="over_limit")
    report = with_owners(replace(RUN, losses=(loss,), differences=(OTHER,)), MODEL)

    assert not report.is_equal
    assert sentence(report).startswith("Different: 1 differences")


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, comparison=replace(REPORT.comparison, differences=(OTHER,))),
        replace(REPORT, comparison=replace(REPORT.comparison, runs=())),
        replace(REPORT, comparison=replace(REPORT.comparison, models=())),
        with_owners(replace(RUN, files=0), replace(MODEL, files=0)),
        with_owners(replace(RUN, differences=(OTHER,)), MODEL),
        with_owners(RUN, replace(MODEL, differences=(OTHER,))),
        replace(REPORT, registry=EMPTY),
        replace(REPORT, other_registry=REPORT.registry),
        replace(REPORT, is_drained=False),
    ],
)
def test_anything_else_is_different(report: Report) -> None:
    assert not report.is_equal
    assert sentence(report).startswith("Different: ")


def test_the_tables_show_files_of_runs_and_models() -> None:
    lines = shown(REPORT)

    assert "run a p s 2 1,500 yes" in lines
    assert "model m m-p m-s 7 20 yes" in lines


def test_the_tables_show_what_differs() -> None:
    file = Difference(kind="file", key="a.png", primary="1 bytes x", secondary="absent")
    lines = shown(
        with_owners(replace(RUN, differences=(file,)), replace(MODEL, secondary_id=None, differences=(OTHER,)))
    )

    assert "run a p s 2 1,500 no" in lines
    assert "model m m-p absent 7 20 1 differ" in lines
    assert "file a.png: '1 bytes x' on the primary, 'absent' on the secondary" in lines


@pytest.mark.parametrize(("width", "shows_whole_ids"), [(80, False), (132, True)])
def test_ids_are_whole_where_there_is_room(width: int, shows_whole_ids: bool) -> None:
    wide = with_owners(replace(RUN, primary_id="p" * 32), MODEL)

    assert ("p" * 32 in " ".join(shown(wide, width))) == shows_whole_ids


def test_the_document_counts_files() -> None:
    assert document(REPORT, {"proxy": "http://p"})["files"] == {"count": 9, "bytes": 1520}


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


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (REPORT, 0),
        (with_owners(replace(RUN, losses=(Loss(key="run:p", kind="tag", item="y", reason="over_limit"),)), MODEL), 0),
        (with_owners(replace(RUN, differences=(OTHER,)), MODEL), 1),
    ],
)
def test_only_what_is_not_on_record_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, report: Report, code: int
) -> None:
    monkeypatch.setattr(demo, "_start", lambda *_, **__: None)
    monkeypatch.setattr(demo, "_train_and_compare", lambda *_, **__: report)

    assert run_demo(keep=False, json=False, directory=tmp_path) == code


def test_sigterm_ends_the_demo_as_an_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(demo, "require_mlflow", lambda: signal.raise_signal(signal.SIGTERM))

    assert run_demo(keep=False, json=True, directory=tmp_path) == 130
    assert signal.getsignal(signal.SIGTERM) is before

"""What the demo found, and how it is shown: the tables, the sentence, the JSON document. Called by `demo`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dualtrack.demo.compare import Comparison, ModelComparison, Registry, RunComparison

WIDE = 132  # columns from which whole ids fit
SHORT_ID = 10
YES, NO = "[green]yes[/]", "[red]no[/]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What stands on both sides, on which one the registry is, and whether anything is still on its way."""

    comparison: Comparison
    registry: Registry
    other_registry: Registry
    is_drained: bool

    @property
    def has_one_registry(self) -> bool:
        return bool(self.registry.versions) and self.other_registry.is_empty

    @property
    def files(self) -> int:
        return sum(owner.files for owner in self.comparison.owners)

    @property
    def file_bytes(self) -> int:
        return sum(owner.file_bytes for owner in self.comparison.owners)

    @property
    def is_equal(self) -> bool:
        has_all = bool(self.comparison.runs and self.comparison.models and self.files)
        return has_all and self.is_drained and self.comparison.is_equal and self.has_one_registry


def show(report: Report, title: str, console: Console) -> None:
    """Print the tables, every difference, and the sentence that says it all."""
    id_length = None if console.width >= WIDE else SHORT_ID
    console.print(_runs_table(report.comparison, title, id_length))
    console.print(_files_table(report.comparison, id_length))
    for difference in report.comparison.all_differences:
        console.print(f"  {difference}", style="red", markup=False)
    if report.comparison.all_losses:
        console.print(*_losses(report.comparison), sep="\n")
    console.print(_registry_table(report))
    console.print(sentence(report), style="bold green" if report.is_equal else "bold red", soft_wrap=True)


def document(report: Report, urls: Mapping[str, str]) -> dict[str, object]:
    """Answer the same for programs."""
    return {
        "equal": report.is_equal,
        "drained": report.is_drained,
        "files": {"count": report.files, "bytes": report.file_bytes},
        "losses": report.comparison.all_losses,
        "comparison": report.comparison,
        "registry": {"databricks": report.registry, "azureml": report.other_registry},
        "urls": urls,
    }


def sentence(report: Report) -> str:
    runs, models = len(report.comparison.runs), _counted(len(report.comparison.models), "logged model")
    if report.is_equal:
        points = sum(run.points for run in report.comparison.runs)
        files = f"{report.files} files ({report.file_bytes:,} bytes)"
        where = "stand on both workspaces, the registry on one."
        lost = len(report.comparison.all_losses)
        verdict = f"Equal except for {_counted(lost, 'recorded loss', 'recorded losses')}, listed" if lost else "Equal"
        return f"{verdict}: {runs} runs with {points:,} metric points, {models} and {files} {where}"
    count = len(report.comparison.all_differences)
    registry = "one side" if report.has_one_registry else "not exactly one side"
    backlog = "empty" if report.is_drained else "not empty or has parked entries"
    what = f"{runs} runs, {models} and {report.files} files"
    return f"Different: {count} differences in {what}; registry on {registry}; backlog {backlog}."


def _counted(number: int, what: str, several: str = "") -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {several or f'{what}s'}"


def _runs_table(comparison: Comparison, title: str, id_length: int | None) -> Table:
    table = _table(f"{title}: logged once, standing twice")
    for name in ("run", "databricks", "azureml"):
        table.add_column(name, no_wrap=True)
    for name in ("params", "metrics", "tags", "points"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("equal", no_wrap=True)
    for run in comparison.runs:
        table.add_row(
            run.name,
            *_ids(run, id_length),
            *(f"{count:,}" for count in (run.params, run.metrics, run.tags, run.points)),
            _verdict(run),
        )
    return table


def _files_table(comparison: Comparison, id_length: int | None) -> Table:
    """Say of a run whether its files are equal, its other fields having a table; of a model, whether all of it is."""
    table = _table("files and logged models: path, size, SHA-256")
    for name in ("of", "databricks", "azureml"):
        table.add_column(name, no_wrap=True)
    for name in ("files", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("equal", no_wrap=True)
    for run in comparison.runs:
        verdict = YES if run.has_equal_files else NO
        table.add_row(f"run {run.name}", *_ids(run, id_length), f"{run.files:,}", f"{run.file_bytes:,}", verdict)
    for model in comparison.models:
        counts = (f"{model.files:,}", f"{model.file_bytes:,}")
        table.add_row(f"model {model.name}", *_ids(model, id_length), *counts, _verdict(model))
    return table


def _losses(comparison: Comparison) -> Iterator[Text | Padding]:
    """List every loss, those of one owner, kind and reason together: a hundred params are no hundred lines."""
    names = {f"run:{run.primary_id}": f"run {run.name}" for run in comparison.runs}
    names |= {f"model:{model.primary_id}": f"model {model.name}" for model in comparison.models}
    groups: dict[str, list[str]] = {}
    for loss in comparison.all_losses:
        group = f"{names.get(loss.key, loss.key)}: {loss.kind} {loss.reason}"
        groups.setdefault(group, []).append(loss.item or "the whole")
    yield Text("recorded losses: what azureml cannot hold, as the proxy has it on record", style="italic")
    for group, items in groups.items():
        yield Text(f"\n {group}, {len(items)}")
        yield Padding(Text(", ".join(sorted(items)), style="dim"), (0, 0, 0, 3))
    yield Text()


def _registry_table(report: Report) -> Table:
    table = _table("model registry: on one backend only")
    for name in ("backend", "models", "versions", "right"):
        table.add_column(name)
    sides = (
        ("databricks (the registry)", report.registry, bool(report.registry.versions)),
        ("azureml", report.other_registry, report.other_registry.is_empty),
    )
    for name, registry, is_right in sides:
        models = ", ".join(registry.models) or "none"
        table.add_row(name, models, str(len(registry.versions)), YES if is_right else NO)
    return table


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)


def _ids(owner: RunComparison | ModelComparison, length: int | None) -> tuple[str, str]:
    """What it is called on both sides; a model that is files of a run, by the run."""
    there, _, folder = (owner.secondary_id or "absent").partition("/")
    return owner.primary_id[:length], f"files of {there[:length]}" if folder else there[:length]


def _verdict(owner: RunComparison | ModelComparison) -> str:
    if not owner.is_equal:
        return f"[red]{len(owner.differences)} differ[/]"
    return f"[yellow]but {len(owner.losses)} lost[/]" if owner.losses else YES

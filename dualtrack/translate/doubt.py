"""What of a log-batch call is still to be sent when nobody knows whether an earlier one was done. Pure.

Params and tags may be repeated; a metric point may not: MLflow's own server keeps an exact repeat once, of the clouds'
nobody knows (facts/backends, "Both" item 4), and a call that fails may have stored a part (B7). So after an answer that
was lost the points are looked for, by that side's own ids and names, and only those that are missing are sent. The
run's latest points, which come with one read, rule most histories out: nothing of a metric is there whose latest point
is older than all that was sent. The alternative that lost: to send everything again and trust in the server.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dualtrack.core.exchange import Call, Document
from dualtrack.core.views import number
from dualtrack.translate.document import field, objects, parse, text, write
from dualtrack.translate.evidence import point


def sent_metrics(call: Call) -> list[Document]:
    """The points of a log-batch call."""
    return objects(parse(call.body).get("metrics"))


def models_named(metrics: Sequence[Document]) -> list[str]:
    """The logged models that points belong to, which keep copies of their own."""
    return list(dict.fromkeys(text(metric["model_id"]) for metric in metrics if metric.get("model_id")))


def unread(metrics: Sequence[Document], entity: Document) -> list[str]:
    """Name the metrics whose history has to be read; `entity` is the run as the backend answers it."""
    latest = _latest(entity)
    by_key: dict[str, list[Document]] = defaultdict(list)
    for metric in metrics:
        by_key[text(metric.get("key"))].append(metric)
    return [key for key, points in by_key.items() if key in latest and not _is_told(points, latest[key])]


def still_to_send(
    call: Call, entity: Document, histories: Mapping[str, Sequence[Document]], models: Mapping[str, Document | None]
) -> Call | None:
    """Answer the call without the points that are there; None when nothing is left of it."""
    document = parse(call.body)
    metrics = objects(document.get("metrics"))
    left = missing(metrics, entity, histories, models)
    if len(left) == len(metrics):
        return call
    rest: Document = {name: value for name, value in document.items() if name != "metrics"}
    if left:
        rest["metrics"] = list(left)
    if not any(rest.get(name) for name in ("metrics", "params", "tags")):
        return None
    return Call(operation=call.operation, method=call.method, target=call.target, body=write(rest))


def missing(
    metrics: Sequence[Document],
    entity: Document,
    histories: Mapping[str, Sequence[Document]],
    models: Mapping[str, Document | None],
) -> list[Document]:
    """Answer those points that are not there; `histories` are of the metrics that `unread` names."""
    latest = _latest(entity)
    there = {key: {point(latest[key])} for key in latest}
    for key, history in histories.items():
        there.setdefault(key, set()).update(map(point, history))
    of_models = {name: _points_of(model) for name, model in models.items()}

    def is_there(metric: Document) -> bool:
        key, sent = text(metric.get("key")), point(metric)
        of_model = of_models.get(text(metric.get("model_id")), set()) if metric.get("model_id") else None
        return sent in there.get(key, ()) and (of_model is None or (key, sent) in of_model)

    # a repeat of the same point in another spelling is no second one either
    once = {(text(each.get("key")), point(each), text(each.get("model_id"))): each for each in reversed(metrics)}
    return [metric for metric in reversed(once.values()) if not is_there(metric)]


def _latest(entity: Document) -> dict[str, Document]:
    return {text(metric.get("key")): metric for metric in objects(field(entity, "run", "data", "metrics"))}


def _is_told(points: Sequence[Document], latest: Document) -> bool:
    """Say whether the latest point alone tells which of `points` are there."""
    if all(point(each) == point(latest) for each in points):
        return True
    reached = number(latest.get("step", 0))
    steps = [number(each.get("step", 0)) for each in points]
    return reached is not None and all(step is not None and step > reached for step in steps)


def _points_of(model: Document | None) -> set[tuple[str, tuple[float | None, ...]]]:
    return {(text(metric.get("key")), point(metric)) for metric in objects(field(model, "model", "data", "metrics"))}

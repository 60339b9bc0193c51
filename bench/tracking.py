"""The few tracking calls that the benchmark itself makes; blocking, one connection each."""

import time
import urllib.request
import uuid

import orjson

API = "/api/2.0/mlflow"
SECONDS = 30.0


def call(url: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    """Answer the JSON of one call: a POST when there is a body."""
    with urllib.request.urlopen(_request(url, path, body), timeout=SECONDS) as answer:
        found = orjson.loads(answer.read())
    if not isinstance(found, dict):
        raise TypeError(f"{url}{path} answered {type(found).__name__}, not an object")
    return found


def _request(url: str, path: str, body: dict[str, object] | None) -> urllib.request.Request:
    data = None if body is None else orjson.dumps(body)
    return urllib.request.Request(url + path, data=data, headers={"Content-Type": "application/json"})


def mirror_mark(url: str) -> str | None:
    """Make an experiment, and answer what `X-Dualtrack` says of it."""
    request = _request(url, f"{API}/experiments/create", {"name": f"bench-{uuid.uuid4().hex}"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        mark = answer.headers.get("X-Dualtrack")
    return None if mark is None else str(mark)


def mirrored_points(url: str, source_run_id: str) -> int:
    """How many points of `loss` the mirror has for the run that the client knows by this id."""
    found = call(url, f"{API}/experiments/search", {"max_results": 1000})
    experiments = found.get("experiments")
    assert isinstance(experiments, list)
    search: dict[str, object] = {
        "experiment_ids": [each["experiment_id"] for each in experiments],
        "filter": f"tags.`dualtrack.source_run_id` = '{source_run_id}'",
    }
    match call(url, f"{API}/runs/search", search):
        case {"runs": [{"info": {"run_id": str(run_id)}}]}:
            history = call(url, f"{API}/metrics/get-history?run_id={run_id}&metric_key=loss&max_results=25000")
        case other:
            raise ValueError(f"the mirror does not have exactly one run marked {source_run_id}: {other}")
    metrics = history.get("metrics", [])
    assert isinstance(metrics, list)
    return len(metrics)


def create_runs(url: str, count: int) -> list[str]:
    """Create `count` runs in an experiment of their own, as the client would; answer their ids."""
    name = f"bench-{uuid.uuid4().hex}"
    experiment_id = call(url, f"{API}/experiments/create", {"name": name})["experiment_id"]
    return [_create_run(url, experiment_id, number) for number in range(count)]


def _create_run(url: str, experiment_id: object, number: int) -> str:
    body = {
        "experiment_id": experiment_id,
        "user_id": "bench",
        "run_name": f"bench-{number}",
        "start_time": time.time_ns() // 1_000_000,
        "tags": [],
    }
    answer = call(url, f"{API}/runs/create", body)
    match answer:
        case {"run": {"info": {"run_id": str(run_id)}}}:
            return run_id
        case _:
            raise ValueError(f"{url} answered no run: {answer}")


def artifact_path(url: str, run_id: str) -> str:
    """Where the files of a run are uploaded to and downloaded from, below `url`."""
    match call(url, f"{API}/runs/get?run_id={run_id}"):
        case {"run": {"info": {"artifact_uri": str(root)}}} if root.startswith("mlflow-artifacts:/"):
            return "/api/2.0/mlflow-artifacts/artifacts/" + root.removeprefix("mlflow-artifacts:/").strip("/")
        case other:
            raise ValueError(f"{url} keeps no artifacts of the run {run_id} itself: {other}")


def log_batch(url: str, run_id: str, *, params: int, keys: int, steps: int) -> None:
    """Log params, and `steps` points of each of `keys` metrics, and end the run."""
    points = [
        {"key": f"metric{key}", "value": step / 7, "timestamp": 1_700_000_000_000 + step, "step": step}
        for key in range(keys)
        for step in range(steps)
    ]
    named = [{"key": f"param{number}", "value": str(number)} for number in range(params)]
    call(url, f"{API}/runs/log-batch", {"run_id": run_id, "params": named, "metrics": points})
    call(url, f"{API}/runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": time.time_ns() // 1_000_000})


def experiments(url: str) -> list[str]:
    """The ids of all experiments but the default one."""
    found = call(url, f"{API}/experiments/search", {"max_results": 1000}).get("experiments")
    assert isinstance(found, list)
    return [str(each["experiment_id"]) for each in found if each["name"] != "Default"]


def count_points(url: str, keys: int) -> tuple[int, int]:
    """How many runs there are, and how many points they have of so many metrics; of all of them if they are alike."""
    runs: list[str] = []
    token = ""
    while True:
        body: dict[str, object] = {"experiment_ids": experiments(url), "max_results": 1000}
        found = call(url, f"{API}/runs/search", body | ({"page_token": token} if token else {}))
        listed = found.get("runs", [])
        assert isinstance(listed, list)
        runs += [each["info"]["run_id"] for each in listed]
        token = str(found.get("next_page_token", ""))
        if not token:
            break
    looked = (runs[0], runs[len(runs) // 2], runs[-1]) if runs else ()
    histories = [
        call(url, f"{API}/metrics/get-history?run_id={run_id}&metric_key=metric{key}&max_results=25000").get("metrics")
        for run_id in looked
        for key in range(keys)
    ]
    points = [len(each) for each in histories if isinstance(each, list)]
    return len(runs), sum(points) // max(1, len(looked))

"""Whatever is down, and whenever: the training goes on, and in the end both sides are equal."""

import random
import threading
from pathlib import Path

import pytest

from dualtrack.demo.servers import MlflowServer, answers
from tests.support.clients import PATIENT, Script, run_script
from tests.support.facade import Facade
from tests.support.proxy import PRIMARY, SECONDARY, Dualtrack, until
from tests.support.servers import call
from tests.support.sides import assert_equal
from tests.support.wire import ask

pytestmark = pytest.mark.acceptance

SEARCH = "/api/2.0/mlflow/experiments/search"
RUNS, STEPS = 2, 60
POINTS = STEPS + 2 * (STEPS // 5)
KILLS = 4


def test_the_secondary_is_down_for_the_whole_run(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, secondary_facade: Facade, tmp_path: Path
) -> None:
    """The training ends as if nothing were wrong; the secondary catches up when it is there."""
    tokens = {SECONDARY: secondary_facade.token}
    with Dualtrack(tmp_path, mlflow_primary.url, secondary_facade.url, tokens=tokens) as proxy:
        done = run_script("steady", proxy.url, tmp_path, "down all along", str(RUNS), str(STEPS))
        until("the outage shows", lambda: proxy.backend()["up"] is False)
        behind = proxy.backend()
        assert behind["backlog"] > RUNS * STEPS
        assert behind["parked"] == 0
        secondary_facade.start()

        proxy.drain()
        assert proxy.backend()["up"] is True
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=RUNS)
    assert [run.points for run in found.runs] == [POINTS] * RUNS


def test_an_experiment_is_deleted_and_restored_meanwhile(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, secondary_facade: Facade, tmp_path: Path
) -> None:
    """What happens to an experiment happens to its runs: after all that came before it, before all that came after."""
    tokens = {SECONDARY: secondary_facade.token}
    with Dualtrack(tmp_path, mlflow_primary.url, secondary_facade.url, tokens=tokens) as proxy:
        done = run_script("cascade", proxy.url, tmp_path, "cascade")
        secondary_facade.start()

        proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=3)


def test_the_proxy_ends_in_order_while_the_secondary_is_down(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, secondary_facade: Facade, tmp_path: Path
) -> None:
    """The backlog outlives the process that took it in."""
    tokens = {SECONDARY: secondary_facade.token}
    with Dualtrack(tmp_path, mlflow_primary.url, secondary_facade.url, tokens=tokens) as proxy:
        done = run_script("steady", proxy.url, tmp_path, "a backlog left over", "1", "20")
        assert proxy.terminate() == 0, proxy.tail()
        secondary_facade.start()
        proxy.start()

        proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=1)


def test_the_secondary_refuses_the_token_from_the_start(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, secondary_facade: Facade, tmp_path: Path
) -> None:
    """Nothing is parked for a wrong token: it is shown, and once it is right everything is delivered."""
    secret = tmp_path / "token"
    secret.write_text("not-the-one")
    secondary_facade.start()
    by_file = {"secondary": {"auth": {"type": "token", "token_file": str(secret)}}}
    with Dualtrack(tmp_path, mlflow_primary.url, secondary_facade.url, backends=by_file) as proxy:
        done = run_script("steady", proxy.url, tmp_path, "wrong token", "1", "20")
        until("the refusal shows", lambda: "401" in proxy.backend()["last_error"])
        shown = proxy.backend()
        assert shown["parked"] == 0
        assert shown["backlog"] > 20
        secret.write_text(secondary_facade.token)

        proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=1)


def test_the_primary_is_down_at_the_start(
    mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, primary_facade: Facade, tmp_path: Path
) -> None:
    """A client is told to come back, in its own words, and its own retry carries on when the primary comes up."""
    tokens = {PRIMARY: primary_facade.token}
    with Dualtrack(tmp_path, primary_facade.url, mlflow_secondary.url, tokens=tokens) as proxy:
        assert answers(f"{proxy.admin_url}/readyz"), "a dead primary does not make the proxy unready"
        for method, target in (
            ("GET", f"{SEARCH}?max_results=1"),
            ("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=late"),
            ("POST", "/api/2.0/mlflow/runs/create"),
            ("POST", "/api/2.0/mlflow/registered-models/create"),
            ("GET", "/"),
        ):
            refusal = ask(proxy.url, method, target, {"experiment_id": "0"} if method == "POST" else None)
            assert refusal.status == 503, target
            assert refusal.document["error_code"] == "TEMPORARILY_UNAVAILABLE"
            assert int(refusal.headers["retry-after"]) >= 1
        version = ask(proxy.url, "GET", "/version")
        assert version.status == 200
        assert version.body[:1].isdigit()

        with Script("steady", proxy.url, tmp_path, "primary late", "1", "20", env=PATIENT) as script:
            refused = proxy.metric("dualtrack_requests_total", outcome="5xx")
            until(
                "the client has met the outage",
                lambda: proxy.metric("dualtrack_requests_total", outcome="5xx") > refused,
            )
            assert script.is_running
            primary_facade.start()
            done = script.finish()

        proxy.drain()
    assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=1)


def test_a_dead_primary_leaves_nothing_to_settle(
    mlflow_secondary: MlflowServer, primary_facade: Facade, tmp_path: Path
) -> None:
    """A write that never reached the primary is refused and forgotten."""
    with Dualtrack(tmp_path, primary_facade.url, mlflow_secondary.url) as proxy:
        refused = ask(proxy.url, "POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})

        assert refused.status == 503
        assert proxy.status()["open_entries"] == 0
        assert proxy.backend()["backlog"] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kill_9_at_random_instants(
    seed: int,
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    primary_facade: Facade,
    secondary_facade: Facade,
    tmp_path: Path,
) -> None:
    """Killed in the middle of a request, of a sync, of a delivery: every acknowledged write is on both sides, once."""
    chance = random.Random(seed)
    primary_facade.start()
    secondary_facade.start()
    tokens = {PRIMARY: primary_facade.token, SECONDARY: secondary_facade.token}
    end = tmp_path / "end"  # the training goes on until it was killed for the last time, however fast it is
    arguments = (f"kill -9, seed {seed}", str(RUNS), str(STEPS), str(end))
    with (
        Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens) as proxy,
        Script("steady", proxy.url, tmp_path, *arguments, env=PATIENT) as script,
    ):
        instants = []
        arrived = primary_facade.wait_for(1)
        for _ in range(KILLS):
            arrived = primary_facade.wait_for(arrived + chance.randint(1, RUNS * STEPS // (2 * KILLS)))
            delay = chance.uniform(0, 0.02)
            threading.Event().wait(delay)  # not for anything to happen: it is what makes the instant random
            proxy.kill()
            instants.append((arrived, round(delay, 4)))
            proxy.restart()
        print("killed at (request, delay)", instants)
        end.touch()
        done = script.finish()

        proxy.drain()
        assert proxy.status()["open_entries"] == 0
        assert secondary_facade.duplicates()["runs"] == 0
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"])
    points = {run.primary_id: run.points for run in found.runs}
    assert {run_id: points[run_id] for run_id in done["runs"]} == done["points"]
    assert min(done["points"].values()) >= POINTS
    # a client that repeats a create whose answer was lost makes a second, empty run; the mirror has that one too
    assert all(count == 0 for run_id, count in points.items() if run_id not in done["runs"])
    assert len(points) <= RUNS + KILLS


def test_terminated_in_the_middle(mlflow_primary: MlflowServer, mlflow_secondary: MlflowServer, tmp_path: Path) -> None:
    """SIGTERM: requests under way are finished, the exit code is 0, and a new process takes over."""
    end = tmp_path / "end"
    arguments = ("terminated", str(RUNS), str(STEPS), str(end))
    with Dualtrack(tmp_path, mlflow_primary.url, mlflow_secondary.url) as proxy:
        with Script("steady", proxy.url, tmp_path, *arguments, env=PATIENT) as script:
            until("it is in the middle", lambda: proxy.metric("dualtrack_requests_total", outcome="mirrored") > STEPS)
            assert proxy.terminate() == 0, proxy.tail()
            assert script.is_running
            proxy.start()
            end.touch()
            done = script.finish()

        proxy.drain()
        log = proxy.log_path.read_text()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"], runs=RUNS)
    assert {run.primary_id: run.points for run in found.runs} == done["points"]
    assert "reconcile.left_open" not in log, "an orderly end leaves no write in doubt"


def test_both_servers_down_and_up_again(
    mlflow_primary: MlflowServer,
    mlflow_secondary: MlflowServer,
    primary_facade: Facade,
    secondary_facade: Facade,
    tmp_path: Path,
) -> None:
    """An outage of both in the middle of a training is a pause, not a gap."""
    tokens = {PRIMARY: primary_facade.token, SECONDARY: secondary_facade.token}
    end = tmp_path / "end"
    primary_facade.start()
    secondary_facade.start()
    with Dualtrack(tmp_path, primary_facade.url, secondary_facade.url, tokens=tokens) as proxy:
        with Script("steady", proxy.url, tmp_path, "both down", "1", str(STEPS), str(end), env=PATIENT) as script:
            primary_facade.wait_for(STEPS // 2)
            secondary_facade.stop()
            primary_facade.stop()
            until("the outage is felt", lambda: proxy.metric("dualtrack_requests_total", outcome="5xx") > 0)
            primary_facade.start()
            secondary_facade.start()
            end.touch()
            done = script.finish()

        proxy.drain()
    found = assert_equal(mlflow_primary.url, mlflow_secondary.url, done["experiment_id"])
    assert {run.primary_id: run.points for run in found.runs}[done["runs"][0]] == done["points"][done["runs"][0]]
    assert call(mlflow_primary.url, "runs/search", {"experiment_ids": [done["experiment_id"]]})["runs"]

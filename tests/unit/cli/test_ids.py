"""`dualtrack ids ID` and `dualtrack ids export`."""

import orjson

from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from tests.unit.cli.conftest import RunningProxy, Shell


def learn(proxy: RunningProxy, count: int) -> None:
    refs = [Ref(EntityKind.RUN, ClientId(f"run-{number:04}")) for number in range(count)]
    twins = [
        Twin(ref=ref, backend=name, backend_id=BackendId(f"{name}/{ref.client_id}"), name="tab\there")
        for ref in refs
        for name in ("a", "b")
    ]
    proxy.call(proxy.journal.learn(twins))


def test_any_id_shows_every_backend(shell: Shell, proxy: RunningProxy) -> None:
    learn(proxy, 2)

    by_secondary = shell("ids", "b/run-0001", "--admin-url", proxy.url)
    document = orjson.loads(shell("ids", "a/run-0001", "--admin-url", proxy.url, "--json").stdout)

    header, *rows = by_secondary.stdout.splitlines()
    assert header.split() == ["kind", "client", "id", "backend", "id", "name", "web"]
    assert [row.split()[:4] for row in rows] == [
        ["run", "run-0001", "a", "a/run-0001"],
        ["run", "run-0001", "b", "b/run-0001"],
    ]
    assert [twin["id"] for twin in document["entities"][0]["twins"]] == ["a/run-0001", "b/run-0001"]


def test_an_unknown_id_says_what_to_do(shell: Shell, proxy: RunningProxy) -> None:
    result = shell("ids", "no/body?", "--admin-url", proxy.url)

    assert result.exit_code == 2
    assert "no/body?" in result.stderr
    assert "ids export" in result.stderr


def test_export_writes_every_row_once(shell: Shell, proxy: RunningProxy) -> None:
    """More rows than a page holds."""
    learn(proxy, 1200)

    table = shell("ids", "export", "--admin-url", proxy.url)
    document = orjson.loads(shell("ids", "export", "--admin-url", proxy.url, "--json").stdout)

    header, *rows = table.stdout.splitlines()
    assert header == "kind\tclient_id\tbackend\tid\tname\tweb"
    assert [row.count("\t") for row in rows] == [5] * 2400
    assert len({row.split("\t")[3] for row in rows}) == 2400
    assert len(document["entities"]) == 1200


def test_an_empty_export_is_still_a_document(shell: Shell, proxy: RunningProxy) -> None:
    result = shell("ids", "export", "--admin-url", proxy.url, "--json")

    assert orjson.loads(result.stdout) == {"entities": []}


def test_a_discarded_twin_is_shown_as_such(shell: Shell, proxy: RunningProxy) -> None:
    ref = Ref(EntityKind.RUN, ClientId("run"))
    twins = [
        Twin(ref=ref, backend="a", backend_id=BackendId("run")),
        Twin(ref=ref, backend="b", backend_id=BackendId("")),
    ]
    proxy.call(proxy.journal.learn(twins))

    assert "(discarded)" in shell("ids", "run", "--admin-url", proxy.url).stdout

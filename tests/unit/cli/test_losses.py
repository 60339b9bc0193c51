"""`dualtrack status --losses`: what a secondary could not hold, of all or of one entity, for people and programs."""

from dataclasses import replace

import orjson

from dualtrack.core.ids import BackendId, Twin
from dualtrack.core.loss import LossKind
from dualtrack.ports import Loss, Progress
from tests.unit.cli.conftest import RUN, RunningProxy, Shell

LOST = Loss(kind=LossKind.TAG, item="a\tnote", reason="shortened", detail="tag 'a note': too long")


def lose(proxy: RunningProxy, *losses: Loss, key: str = RUN.key) -> None:
    proxy.call(proxy.journal.record(Progress(backend="b", key=key, losses=losses)))


def test_the_status_counts_losses_and_says_how_to_list_them(shell: Shell, proxy: RunningProxy) -> None:
    before = shell("status", "--admin-url", proxy.url)
    lose(proxy, LOST)
    after = shell("status", "--admin-url", proxy.url)

    assert "--losses" not in before.stdout
    assert (after.exit_code, "dualtrack status --losses" in after.stdout) == (0, True)
    assert orjson.loads(shell("status", "--admin-url", proxy.url, "--json").stdout)["backends"][1]["losses"] == 1


def test_losses_are_listed_of_all_and_of_one_by_any_id(shell: Shell, proxy: RunningProxy) -> None:
    proxy.call(proxy.journal.learn([Twin(ref=RUN, backend="b", backend_id=BackendId("run-on-b"))]))
    lose(proxy, LOST, Loss(kind=LossKind.RUN, reason="discarded", detail="by hand"))
    lose(proxy, replace(LOST, item="other"), key="run:other")

    everything = shell("status", "--losses", "--admin-url", proxy.url)
    mine = shell("status", "--losses", "run-on-b", "--admin-url", proxy.url)
    document = orjson.loads(shell("status", "--losses", "run-on-b", "--json", "--admin-url", proxy.url).stdout)

    assert len(everything.stdout.splitlines()) == 4
    assert [line.split("\t")[:5] for line in mine.stdout.splitlines()] == [
        ["backend", "of", "kind", "item", "reason"],
        ["b", RUN.key, "run", "(whole)", "discarded"],
        ["b", RUN.key, "tag", "a note", "shortened"],
    ]
    assert [(loss["kind"], loss["item"]) for loss in document["losses"]] == [("run", ""), ("tag", "a\tnote")]


def test_more_losses_than_a_page_are_all_listed(shell: Shell, proxy: RunningProxy) -> None:
    lose(proxy, *(replace(LOST, item=str(number)) for number in range(2100)))

    document = orjson.loads(shell("status", "--losses", "--json", "--admin-url", proxy.url).stdout)

    assert [loss["item"] for loss in document["losses"]] == [str(number) for number in reversed(range(2100))]


def test_nothing_lost_is_said_and_an_unknown_id_is_exit_2(shell: Shell, proxy: RunningProxy) -> None:
    assert shell("status", "--losses", "--admin-url", proxy.url).stdout == "nothing is lost\n"
    assert orjson.loads(shell("status", "--losses", "--json", "--admin-url", proxy.url).stdout) == {"losses": []}
    assert shell("status", "--losses", "nobody", "--admin-url", proxy.url).exit_code == 2

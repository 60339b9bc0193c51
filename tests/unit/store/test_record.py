"""The record format: what is sealed comes back, and no damage goes unnoticed."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.exchange import Exchange
from dualtrack.store.record import VERSION, DamagedRecordError, seal, unseal

EXCHANGE = Exchange(
    operation="createRun", method="POST", path="/api/2.0/mlflow/runs/create", query="a=1", body=b'{"x":1}', answer=b"{}"
)
# what a request line may hold: no tab, no line break, and nothing that UTF-8 cannot say
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\t\n"))


@given(operation=LINE, method=LINE, path=LINE, query=LINE, body=st.binary(), answer=st.binary())
def test_what_is_sealed_comes_back(
    operation: str, method: str, path: str, query: str, body: bytes, answer: bytes
) -> None:
    exchange = Exchange(operation=operation, method=method, path=path, query=query, body=body, answer=answer)

    assert unseal(seal(exchange)) == exchange


def test_every_single_damaged_byte_is_noticed() -> None:
    record = seal(EXCHANGE)
    for at in range(len(record)):
        for change in range(1, 256):
            damaged = bytearray(record)
            damaged[at] ^= change
            with pytest.raises(DamagedRecordError):
                unseal(bytes(damaged))


def test_every_cut_is_noticed() -> None:
    record = seal(EXCHANGE)
    for length in range(len(record)):
        with pytest.raises(DamagedRecordError):
            unseal(record[:length])


@given(record=st.binary())
def test_what_was_never_sealed_is_refused_and_not_guessed_at(record: bytes) -> None:
    with pytest.raises(DamagedRecordError):
        unseal(record)


def test_a_record_of_a_later_version_is_not_read() -> None:
    record = bytes([VERSION + 1]) + seal(EXCHANGE)[1:]

    with pytest.raises(DamagedRecordError, match="version 02"):
        unseal(record)


@pytest.mark.parametrize("head", [b"createRun\tPOST\t/p\t", b"a\tb\tc\td\tmany", b"\xff\tb\tc\td\t1"])
def test_a_head_that_makes_no_sense_is_refused_even_with_its_checksum(head: bytes) -> None:
    payload = head + b"\n{}"
    record = bytes([VERSION]) + zlib.crc32(payload).to_bytes(4) + payload

    with pytest.raises(DamagedRecordError, match="head"):
        unseal(record)


@pytest.mark.parametrize("character", ["\t", "\n"])
def test_a_request_line_that_would_tear_the_record_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="tab or a newline"):
        seal(Exchange(operation="x", method="GET", path=f"/a{character}b"))

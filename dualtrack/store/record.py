r"""How an exchange lies in the journal: sealed with a version and a checksum.

    byte 0      format version (1)
    bytes 1-4   CRC-32 of all that follows, big-endian
    line        operation TAB method TAB path TAB query TAB length of the body, then a newline
    rest        body, then answer

A request line cannot hold a tab or a newline (HTTP forbids both), so no escaping is needed; `seal` checks it.
"""

import zlib

from dualtrack.core.exchange import Exchange

VERSION = 1


class DamagedRecordError(ValueError):
    """The record cannot be read: wrong checksum, unknown version, or cut short."""


def seal(exchange: Exchange) -> bytes:
    head = "\t".join((exchange.operation, exchange.method, exchange.path, exchange.query, str(len(exchange.body))))
    if head.count("\t") != 4 or "\n" in head:
        raise ValueError(f"a request line holds a tab or a newline: {head!r}")
    payload = b"%b\n%b%b" % (head.encode(), exchange.body, exchange.answer)
    return b"%c%b%b" % (VERSION, zlib.crc32(payload).to_bytes(4), payload)


def unseal(record: bytes) -> Exchange:
    """Read a sealed record back; raise `DamagedRecordError` rather than guess."""
    if len(record) < 6 or record[0] != VERSION:
        raise DamagedRecordError(f"unknown record version {record[:1].hex() or 'none'}")
    payload = record[5:]
    if zlib.crc32(payload) != int.from_bytes(record[1:5]):
        raise DamagedRecordError("the checksum does not match")
    head, _, rest = payload.partition(b"\n")
    try:
        operation, method, path, query, length = head.decode().split("\t")
        size = int(length)
    except ValueError as error:
        raise DamagedRecordError("the head cannot be read") from error
    return Exchange(operation=operation, method=method, path=path, query=query, body=rest[:size], answer=rest[size:])

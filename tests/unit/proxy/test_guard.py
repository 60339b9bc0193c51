"""Who may come in: Host, Origin and credentials, and that no header makes the guard fall over."""

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.proxy.guard import Credentials, Guard, host_name

HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "track.example"})
OPEN = Guard(allowed_hosts=HOSTS)
LOCKED = Guard(allowed_hosts=HOSTS, credentials=Credentials.bearer("s3cret"))
ANY = Guard(allowed_hosts=frozenset({"*"}))

READS = ("GET", "HEAD", "OPTIONS")
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def status(guard: Guard, headers: Mapping[str, str], method: str = "POST") -> int | None:
    objection = guard.objection(method, headers)
    return objection[0] if objection else None


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:5000", "localhost"),
        ("127.0.0.1:5000", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:5000", "::1"),
        ("[2001:DB8::A]:80", "2001:db8::a"),
        ("", ""),
        (":5000", ""),
    ],
)
def test_a_host_is_named_without_port_and_brackets(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5000", "127.0.0.1:1", "[::1]:5000", "track.example"])
def test_an_allowed_host_comes_in(host: str) -> None:
    assert status(OPEN, {"Host": host}) is None


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example", "[::2]", "0.0.0.0", "localhost@evil"])
def test_a_foreign_host_does_not(host: str) -> None:
    """A page that has its own name resolve to this machine gets nothing, not even a read."""
    assert status(OPEN, {"Host": host}, "GET") == 403
    assert status(OPEN, {}, "GET") == 403
    assert status(ANY, {"Host": host}, "GET") is None


def test_an_objection_says_what_to_do() -> None:
    objection = OPEN.objection("GET", {"Host": "evil.example"})

    assert objection == (403, "PERMISSION_DENIED", "host 'evil.example' is not served here; add it to allowed_hosts")


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ("http://localhost:5000", None),
        ("https://LOCALHOST:5000", None),
        ("http://localhost:5001", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", None),
    ],
)
def test_a_page_of_another_site_cannot_write(method: str, origin: str, found: int | None) -> None:
    """Our own UI can. Another port is another site."""
    assert status(OPEN, {"Host": "localhost:5000", "Origin": origin}, method) == found


@pytest.mark.parametrize("method", READS)
def test_a_page_of_another_site_may_ask(method: str) -> None:
    """It cannot read the answer: no cross-origin header is ever set."""
    assert status(OPEN, {"Host": "localhost", "Origin": "http://evil.example"}, method) is None


@pytest.mark.parametrize("origin", ["null", "file://", "http:", "about:blank"])
def test_an_origin_without_a_place_is_foreign(origin: str) -> None:
    """Also where any host is allowed and the request names none."""
    assert status(ANY, {"Origin": origin}) == 403


@pytest.mark.parametrize("path_of_ipv6", ["http://[::1]:5000"])
def test_a_ui_on_ipv6_can_write(path_of_ipv6: str) -> None:
    assert status(OPEN, {"Host": "[::1]:5000", "Origin": path_of_ipv6}) is None


@pytest.mark.parametrize(
    ("given_value", "found"),
    [
        ("Bearer s3cret", None),
        ("Bearer s3cre", 401),
        ("Bearer s3cret ", 401),
        ("Basic s3cret", 401),
        ("s3cret", 401),
        ("", 401),
        ("Bearer \udcff", 401),
        ("Bearer ü", 401),
    ],
)
def test_only_the_token_opens(given_value: str, found: int | None) -> None:
    """Bytes that are no UTF-8 are a wrong token, not a crash. Reads need it as writes do."""
    headers = {"Host": "localhost", "Authorization": given_value}

    assert status(LOCKED, headers) == status(LOCKED, headers, "GET") == found
    assert status(OPEN, headers) is None


def test_a_missing_token_is_asked_for() -> None:
    objection = LOCKED.objection("GET", {"Host": "localhost"})

    assert objection is not None
    assert objection[:2] == (401, "UNAUTHENTICATED")
    assert "MLFLOW_TRACKING_TOKEN" in objection[2]


@pytest.mark.parametrize(("name", "password"), [("ann", "pass"), ("ann", "pa:ss"), ("änn", "pässwörd"), ("ann", "")])
def test_a_name_and_a_password_open(name: str, password: str) -> None:
    """Basic authentication as MLflow clients send it, in UTF-8."""
    guard = Guard(allowed_hosts=HOSTS, credentials=Credentials.basic(name, password))
    sent = base64.b64encode(f"{name}:{password}".encode()).decode()
    wrong = base64.b64encode(f"{name}:{password}x".encode()).decode()

    assert status(guard, {"Host": "localhost", "Authorization": f"Basic {sent}"}) is None
    assert status(guard, {"Host": "localhost", "Authorization": f"Basic {wrong}"}) == 401


def test_credentials_do_not_print_themselves() -> None:
    """Neither alone nor inside a guard (P9)."""
    printed = f"{Credentials.basic('ann', 'pass')} {LOCKED!r}"

    assert "s3cret" not in printed
    assert base64.b64encode(b"ann:pass").decode() not in printed


@given(st.dictionaries(st.sampled_from(["Host", "Origin", "Authorization"]), st.text()), st.sampled_from(WRITES))
def test_any_headers_get_an_answer(headers: dict[str, str], method: str) -> None:
    """And without the token it is always a refusal."""
    encodable = {name: value.encode(errors="replace").decode() for name, value in headers.items()}
    objection = LOCKED.objection(method, encodable)

    assert objection is not None
    assert objection[0] in {401, 403}

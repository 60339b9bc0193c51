"""Keys and refs are two spellings of one thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin, parse_key

refs = st.builds(Ref, st.sampled_from(EntityKind), st.text().map(ClientId))


@given(refs)
def test_a_key_leads_back_to_its_ref(ref: Ref) -> None:
    """Whatever an id holds, colons included."""
    assert parse_key(ref.key) == ref


@given(refs, refs)
def test_two_refs_never_share_a_key(one: Ref, other: Ref) -> None:
    assert (one.key == other.key) == (one == other)


def test_a_key_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="trace"):
        parse_key("trace:tr-1")


@pytest.mark.parametrize(("backend_id", "is_discarded"), [("r1", False), ("", True)])
def test_a_twin_without_an_id_is_discarded(backend_id: str, *, is_discarded: bool) -> None:
    twin = Twin(ref=Ref(EntityKind.RUN, ClientId("r")), backend="b", backend_id=BackendId(backend_id))

    assert twin.is_discarded is is_discarded

import secrets

import pytest
import sqlalchemy as sa
from hypothesis import assume, given
from hypothesis import strategies as st

from data_plane.storage.errors import UnsealedError
from data_plane.storage.sealed import (
    HEADER,
    KEY_ID_BYTES,
    OVERHEAD_BYTES,
    DataKey,
    Sealed,
    key_id_of,
    seal,
    sealed_columns,
    unseal,
)
from faos_core.errors import IntegrityError

KEY = DataKey(b"k" * KEY_ID_BYTES, b"s" * 32)
names = st.text(max_size=12)
places = st.tuples(names, names, names)


@given(place=places, plaintext=st.binary(max_size=300))
def test_unseal_inverts_seal(place: tuple[str, str, str], plaintext: bytes) -> None:
    """A value that cannot be read back is lost."""
    sealed = seal(KEY, *place, plaintext)

    assert unseal(KEY, *place, sealed) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert key_id_of(sealed) == KEY.id


@given(here=places, there=places)
def test_a_value_that_was_moved_is_refused(here: tuple[str, str, str], there: tuple[str, str, str]) -> None:
    """Whoever can write the file must not be able to swap one patient's answer for another's."""
    assume(here != there)

    with pytest.raises(IntegrityError):
        unseal(KEY, *there, seal(KEY, *here, b"secret"))


@pytest.mark.parametrize("there", [("abd", "c", ""), ("a", "c", "bd"), ("ab", "dc", ""), ("ab", "", "dc")])
def test_places_that_join_to_the_same_text_are_different(there: tuple[str, str, str]) -> None:
    """Without lengths between the parts, row "11" of one table could pass for row "1" of another."""
    with pytest.raises(IntegrityError):
        unseal(KEY, *there, seal(KEY, "ab", "c", "d", b"secret"))


@given(position=st.integers(0, OVERHEAD_BYTES + 5), flip=st.integers(1, 255))
def test_a_value_that_was_changed_is_refused(position: int, flip: int) -> None:
    """Every byte is authenticated, header and key id included."""
    changed = bytearray(seal(KEY, "t", "1", "c", b"secret"))
    changed[position] ^= flip

    with pytest.raises(IntegrityError):
        unseal(KEY, "t", "1", "c", bytes(changed))


@pytest.mark.parametrize("plain", [b"", b"in the clear", b'{"a": 1}' * 20, HEADER, HEADER + b"short"])
def test_a_plain_value_is_refused(plain: bytes) -> None:
    """Reading must not quietly accept what an attacker or a defect put there unsealed."""
    with pytest.raises(UnsealedError):
        unseal(KEY, "t", "1", "c", plain)


def test_another_key_does_not_open() -> None:
    """The id alone must not be enough."""
    other = DataKey(KEY.id, secrets.token_bytes(32))

    with pytest.raises(IntegrityError):
        unseal(other, "t", "1", "c", seal(KEY, "t", "1", "c", b"secret"))


def test_equal_values_do_not_look_equal() -> None:
    """Equal ciphertexts would tell which patients share a diagnosis."""
    assert seal(KEY, "t", "1", "c", b"same") != seal(KEY, "t", "1", "c", b"same")


def test_a_key_does_not_print_its_secret() -> None:
    """Keys must not reach a log by accident."""
    assert "ssss" not in repr(KEY)


def test_a_sealed_column_takes_only_sealed_values() -> None:
    """The last line of defence: a forgotten `seal` fails loudly, not in the clear on disk."""
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", Sealed))
    engine = sa.create_engine("sqlite://")
    sealed = seal(KEY, "t", "1", "body", b"secret")

    with engine.begin() as connection:
        table.create(connection)
        for plain in (b"in the clear", "text", HEADER + b"short"):
            with pytest.raises(UnsealedError):
                connection.execute(table.insert().values(body=plain))
        connection.execute(table.insert(), [{"body": sealed}, {"body": None}])
        bodies = list(connection.execute(sa.select(table.c.body).order_by(table.c.id)).scalars())
    engine.dispose()

    assert bodies == [sealed, None]
    assert sealed_columns(table) == ["body"]

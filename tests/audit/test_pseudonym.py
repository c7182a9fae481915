"""Pseudonyms: whoever has the epoch's key knows an image again, and nobody ever again the one that was erased."""

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.audit.pseudonym import Epoch, pseudonyms

ROOT = bytes(range(32))
WHOLE = Epoch(1, {"": ROOT})
CALLS = [f"01ARYZ6S41{number:016d}" for number in range(40)]
ROWS = 3


def derivable(epoch: Epoch) -> set[bytes]:
    """Every key that the epoch has, and those of the calls' rows that follow from them."""
    rows = [key for call in CALLS for key in epoch.row_keys(call, ROWS)]
    return {key for key in (*rows, *epoch.keys.values()) if key is not None}


def above(call: str, row: int) -> list[bytes]:
    """The keys on the way from the root to a row, by the words of the format (section 2.2)."""
    keys = [ROOT]
    for step in (*hashlib.sha256(call.encode()).hexdigest()[:16], f"/{row}"):
        keys.append(hashlib.sha256(keys[-1] + step.encode()).digest())
    return keys


def test_pseudonyms_are_the_first_half_of_an_hmac_of_the_bytes_as_received() -> None:
    keys, rows = [ROOT] * 3, [b"an image", b"", memoryview(b"pixels")]
    wanted = [hmac.new(ROOT, bytes(row), hashlib.sha256).hexdigest()[:32] for row in rows]
    assert pseudonyms(keys, [[row] for row in rows]) == wanted
    assert pseudonyms([ROOT], [[b"an ", memoryview(b"image")]]) == wanted[:1]  # of several inputs, one after the other
    assert wanted[0] == "de00b0c22489368ba479da2931d502b7"  # by: openssl dgst -sha256 -mac HMAC -macopt hexkey:0001…1f
    assert pseudonyms([bytes(32)] * 3, [[row] for row in rows]) != wanted


def test_a_rows_key_is_what_the_format_says() -> None:
    """The literal is by a shell: each step ``printf %s%s KEY STEP | openssl dgst -sha256 -binary``."""
    assert WHOLE.row_keys(CALLS[0], 2) == [above(CALLS[0], row)[-1] for row in (0, 1)]
    assert above(CALLS[0], 0)[-1].hex() == "755e3730d944614c2420e6544bc17f425c49ec7b325f0f499586aafdf28a6ed9"


def test_no_two_rows_share_a_key() -> None:
    assert len({key for call in CALLS for key in WHOLE.row_keys(call, ROWS)}) == len(CALLS) * ROWS


def test_an_epoch_of_which_nothing_was_erased_is_its_32_bytes() -> None:
    assert Epoch.decode(1, ROOT) == WHOLE
    assert WHOLE.encode() == ROOT


ERASED = st.lists(st.tuples(st.sampled_from(CALLS), st.sampled_from([None, *range(ROWS)])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(erased=ERASED)
def test_whatever_is_erased_cannot_be_derived_and_every_other_row_has_the_key_that_it_had(
    erased: list[tuple[str, int | None]],
) -> None:
    epoch = WHOLE
    for call, row in erased:
        epoch = epoch.without(call, ROWS, row)
    gone = {(call, i) for call, row in erased for i in range(ROWS) if row in (None, i)}
    for call in CALLS:
        before, after = WHOLE.row_keys(call, ROWS), epoch.row_keys(call, ROWS)
        assert after == [None if (call, row) in gone else key for row, key in enumerate(before)]
    lost = {key for call, row in gone for key in above(call, row)}
    assert not lost & derivable(epoch), "neither the keys themselves nor any above them"
    assert Epoch.decode(1, epoch.encode()) == epoch
    assert len(epoch.keys) <= 1 + len(erased) * (16 * 15 + ROWS)


@given(erased=ERASED)
def test_the_order_in_which_rows_are_erased_makes_no_difference(erased: list[tuple[str, int | None]]) -> None:
    one = other = WHOLE
    for call, row in erased:
        one = one.without(call, ROWS, row)
    for call, row in reversed(erased):
        other = other.without(call, ROWS, row)
    assert one.encode() == other.encode()


def test_a_call_whose_place_was_erased_has_no_pseudonym_rather_than_a_wrong_one() -> None:
    with pytest.raises(ValueError, match="longer"):
        pseudonyms([key for key in WHOLE.without(CALLS[0], 1).row_keys(CALLS[0], 1) if key], [[b"an image"]])

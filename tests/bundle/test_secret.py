"""Secrets at rest: one passphrase, one purpose, and no parameters that would stop the machine."""

from typing import Any

import pytest

from appliance import canonical
from appliance.bundle import secret
from appliance.errors import KeyUnavailable

PASSPHRASE, PURPOSE, SECRET = b"correct horse battery", "audit key", bytes(range(32))
SEALED = secret.seal(SECRET, PASSPHRASE, PURPOSE)


def edited(**changes: Any) -> bytes:
    return canonical.encode(canonical.decode(SEALED) | changes)


def refuses(data: bytes, passphrase: bytes = PASSPHRASE, purpose: str = PURPOSE) -> None:
    with pytest.raises(KeyUnavailable, match=f"The {purpose} cannot be opened"):
        secret.unseal(data, passphrase, purpose)


def test_what_is_sealed_unseals() -> None:
    assert secret.unseal(SEALED, PASSPHRASE, PURPOSE) == SECRET


def test_sealed_file_is_that_of_section_9() -> None:
    fields = canonical.decode(SEALED)
    assert fields | {"nonce": "", "salt": "", "sealed": ""} == {
        "iterations": 3, "kdf": "argon2id", "lanes": 4, "memory_kib": 65536, "nonce": "", "purpose": PURPOSE, "salt": "",
        "sealed": "",
    }  # fmt: skip
    assert SECRET.hex() not in SEALED.hex()


def test_wrong_passphrase_opens_nothing() -> None:
    refuses(SEALED, b"correct horse batterz")


def test_secret_of_another_purpose_does_not_open() -> None:
    """Neither a file that was renamed nor one whose purpose was rewritten."""
    refuses(SEALED, purpose="appliance seed")
    refuses(edited(purpose="appliance seed"), purpose="appliance seed")


@pytest.mark.parametrize("changes", [
    {"memory_kib": secret.MEMORY_KIB_MAX + 1}, {"memory_kib": 127}, {"memory_kib": 2**52}, {"memory_kib": -1},
    {"iterations": 11}, {"iterations": 0}, {"lanes": 17}, {"lanes": 0}, {"kdf": "argon2i"}, {"kdf": "scrypt"},
    {"salt": ""}, {"salt": "AA"}, {"salt": "AAAA"}, {"nonce": "AAAA"}, {"nonce": ""}, {"sealed": ""}, {"sealed": "AAAA"},
    {"stray": 1}, {"lanes": "4"},
])  # fmt: skip
def test_parameters_out_of_their_limits_are_refused(changes: dict[str, Any]) -> None:
    refuses(edited(**changes))


def test_parameters_over_the_limits_are_refused_before_they_cost_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("a key was stretched")

    monkeypatch.setattr(secret, "_stretch", never)
    for changes in ({"memory_kib": 1 << 40}, {"iterations": 10**6}, {"lanes": 1000}, {"purpose": "other"}):
        refuses(edited(**changes))


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8, 1.0])
def test_altered_secret_is_refused(at: float) -> None:
    sealed = canonical.decode(SEALED)["sealed"]
    i = min(int(len(sealed) * at), len(sealed) - 2)
    refuses(edited(sealed=sealed[:i] + ("A" if sealed[i] != "A" else "B") + sealed[i + 1 :]))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", SEALED[:-1], SEALED + b"\n"])
def test_other_files_are_refused(data: bytes) -> None:
    refuses(data)

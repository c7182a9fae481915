"""Checkpoints: what is signed is one spelling of one tree, and nothing else opens."""

import base64
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.checkpoint import Checkpoint, LogKey, VerifierKey
from appliance.errors import AuditLogError
from tests.audit.logs import KEY, OTHER_KEY, VERIFIER

SPECIFICATIONS_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
CHECKPOINT = Checkpoint(42, hashlib.sha256(b"a root").digest())
NOTE = KEY.sign(CHECKPOINT, VERIFIER.id)
ROOT = base64.b64encode(CHECKPOINT.root)


def signed(text: str, key: LogKey = KEY) -> bytes:
    """A genuine signature over any text at all: what our own key must still not make us accept."""
    signature = base64.b64encode(key.verifier.id + key.key.sign(text.encode())).decode()
    return f"{text}\n— {key.name} {signature}\n".encode()


def body(size: str = "42", root: bytes = ROOT, origin: str = KEY.name) -> str:
    return f"{origin}\n{size}\n{root.decode()}\n"


def test_the_specifications_example_key_is_read_and_written_alike() -> None:
    key = VerifierKey.decode(SPECIFICATIONS_VKEY)
    assert key.name == "example.com/foo"
    assert key.id.hex() == "530d903a"
    assert key.encode() == SPECIFICATIONS_VKEY
    assert VerifierKey.decode(SPECIFICATIONS_VKEY + "\n").encode() == SPECIFICATIONS_VKEY


def test_a_checkpoint_opens_to_what_was_signed() -> None:
    assert VERIFIER.open(NOTE) == CHECKPOINT
    assert VERIFIER.open(signed(body())) == CHECKPOINT  # the forge of this file spells notes as the product does
    assert VerifierKey.decode(VERIFIER.encode()).open(NOTE) == CHECKPOINT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        SPECIFICATIONS_VKEY.replace("530d903a", "530d903b"),
        SPECIFICATIONS_VKEY.replace("530d903a", "530D903A"),
        SPECIFICATIONS_VKEY.replace("example", "Example"),
        SPECIFICATIONS_VKEY[:-4],
        SPECIFICATIONS_VKEY[:-1] + "é",
        "example.com/foo+530d903a+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
        "example.com/foo+530d903a+",
    ],
)
def test_a_key_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(AuditLogError):
        VerifierKey.decode(text)


def test_another_algorithm_under_its_own_key_id_is_refused() -> None:
    material = b"\x04" + VERIFIER.key.public_bytes_raw()
    key_id = hashlib.sha256(KEY.name.encode() + b"\n" + material).hexdigest()[:8]
    with pytest.raises(AuditLogError):
        VerifierKey.decode(f"{KEY.name}+{key_id}+{base64.b64encode(material).decode()}")


def test_another_key_or_another_name_does_not_open_it() -> None:
    stranger = LogKey("appliance-audit/fedcba9876543210", KEY.key)
    for key in (OTHER_KEY, stranger, LogKey(KEY.name, Ed25519PrivateKey.generate())):
        with pytest.raises(AuditLogError):
            key.verifier.open(NOTE)
    with pytest.raises(AuditLogError):
        VERIFIER.open(signed(body(origin=stranger.name)))


def test_no_flipped_bit_opens() -> None:
    for i in range(len(NOTE)):
        for bit in range(8):
            with pytest.raises(AuditLogError):
                VERIFIER.open(NOTE[:i] + bytes([NOTE[i] ^ 1 << bit]) + NOTE[i + 1 :])


def test_no_shortened_note_opens() -> None:
    for end in range(len(NOTE)):
        with pytest.raises(AuditLogError):
            VERIFIER.open(NOTE[:end])


ODD_TEXTS = {
    "Arabic digits": body("٤٢"),
    "leading zero": body("042"),
    "plus sign": body("+42"),
    "underscore": body("4_2"),
    "space": body(" 42"),
    "no number": body("many"),
    "no size": body(""),
    "short root": body(root=base64.b64encode(CHECKPOINT.root[:31])),
    "long root": body(root=base64.b64encode(CHECKPOINT.root + b"\0")),
    "root without its padding": body(root=ROOT.rstrip(b"=")),
    "root with loose last bits": body(root=ROOT[:-2] + bytes([ROOT[-2] + 1]) + b"="),
    "extension line": body() + "an extension\n",
    "blank line within": f"{KEY.name}\n42\n\n{ROOT.decode()}\n",
    "carriage returns": body().replace("\n", "\r\n"),
    "no root": f"{KEY.name}\n42\n",
}


@pytest.mark.parametrize("what", ODD_TEXTS)
def test_even_a_genuine_signature_does_not_open_another_spelling(what: str) -> None:
    with pytest.raises(AuditLogError):
        VERIFIER.open(signed(ODD_TEXTS[what]))


def test_signatures_of_others_are_passed_over() -> None:
    witness = LogKey("witness.example/w1", Ed25519PrivateKey.generate())
    cosigned = NOTE + signed(body(), witness).split(b"\n\n")[1]
    assert VERIFIER.open(cosigned) == CHECKPOINT
    namesake = NOTE + signed(body(), OTHER_KEY).split(b"\n\n")[1]  # our name, another key id
    assert VERIFIER.open(namesake) == CHECKPOINT


def _spoil(note: bytes) -> bytes:
    return KEY.sign(Checkpoint(43, CHECKPOINT.root), VERIFIER.id).split(b"\n\n")[1]


ODD_SIGNATURES: dict[str, Callable[[bytes], bytes]] = {
    "a known key's bad signature beside its good one": lambda note: note + _spoil(note),
    "only strangers' signatures": lambda note: signed(body(), OTHER_KEY),
    "none": lambda note: note.split(b"\n\n")[0] + b"\n\n",
    "no last newline": lambda note: note[:-1],
    "a hyphen for the dash": lambda note: note.replace("— ".encode(), b"- "),
    "a line that is no signature": lambda note: note + b"and more\n",
    "a signature that is not base64": lambda note: note + "— witness.example/w1 %%%\n".encode(),
    "a carriage return": lambda note: note[:-1] + b"\r\n",
    "another kind of line end": lambda note: note[:-1] + "\N{LINE SEPARATOR}".encode() + note.split(b"\n\n")[1],
    "not UTF-8": lambda note: note + b"\xff\n",
    "over the limit": lambda note: note + note.split(b"\n\n")[1] * 200,
}


@pytest.mark.parametrize("what", ODD_SIGNATURES)
def test_a_note_with_odd_signatures_is_refused(what: str) -> None:
    with pytest.raises(AuditLogError):
        VERIFIER.open(ODD_SIGNATURES[what](NOTE))

"""The published vectors: our reader says of each what its index says, and they are what they were."""

import json
from typing import Any

import pytest

from appliance.audit import proof
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import verify
from appliance.errors import AuditLogError
from tests.audit.make_vectors import DAMAGED, FOLDER, WHOLE, files

INDEX: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text())
KEY = VerifierKey.decode(INDEX["verifier_key"])


def rows(kind: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in INDEX["vectors"] if row["kind"] == kind]


@pytest.mark.parametrize("row", rows("log"))
def test_a_log_is_what_the_index_says(row: dict[str, Any]) -> None:
    noted = row.get("noted")
    expected = None if noted is None else (noted["size"], noted["root"])
    folder = FOLDER / row["name"]
    assert sorted(path.name for path in folder.iterdir()) == row["segments"]
    if row["expect"] == WHOLE:
        assert verify(folder, KEY, expected).size >= 0
        return
    with pytest.raises(AuditLogError) as caught:
        verify(folder, KEY, expected)
    sentence = str(caught.value)
    assert (row["expect"] in sentence) or (row["expect"] == DAMAGED and "not valid" in sentence)


@pytest.mark.parametrize("row", rows("receipt"))
def test_a_receipt_is_what_the_index_says(row: dict[str, Any]) -> None:
    data = (FOLDER / f"{row['name']}.receipt").read_bytes()
    if row["expect"] == "proved":
        index, record = proof.decode(data, KEY)
        assert json.loads(record)["index"] == index
        return
    with pytest.raises(AuditLogError):
        proof.decode(data, KEY)


def test_a_vector_that_was_published_is_never_changed() -> None:
    made = dict(files())
    kept = {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    del kept["README.md"]
    assert kept == made

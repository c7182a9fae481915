"""Isolation over the wire: the attacks of ``attacks.py`` on a real appliance, sampled; ``peers.py`` runs them at length.

The first row that is wrong, lost or given twice, and the first valid caller who is refused, fails a test.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from tests import forge
from tests.fakes import numbered
from tests.isolation import attacks
from tests.isolation.attacks import ATTACKS, MALFORMED, METHOD, Model, Server, Tally, besiege, judge
from tests.isolation.besieged import ONE, OTHER, TWO, besieged
from tests.running import Running, records

SECONDS, CALLS = 5, 120  # of one attack; it takes the fewer of the two


@dataclass(frozen=True)
class Siege:
    appliance: Running

    def attack(self, name: str, *models: Model, calls: int = CALLS, seed: int = 1) -> Tally:
        server = Server(f"127.0.0.1:{self.appliance.plaintext_port}", models, within_s=10)
        return besiege(server, name, seconds=SECONDS, calls_max=calls, seed=seed, strict=True)


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """An appliance under attack, whose log must be whole when all is over."""
    with besieged(tmp_path_factory.mktemp("besieged")) as appliance:
        yield Siege(appliance)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in MALFORMED])
def test_every_valid_caller_gets_its_own_rows_whatever_its_neighbours_do(siege: Siege, name: str) -> None:
    tally = siege.attack(name, ONE)
    assert tally.verdicts["right"] == tally.sent >= CALLS


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_neighbour_is_refused_alone(siege: Siege, name: str) -> None:
    tally = siege.attack(name, ONE)
    assert tally.verdicts["right"] == tally.sent >= CALLS
    assert tally.hostile.total() > CALLS / 10
    expected = {"INVALID_ARGUMENT"}
    if name == "empty request":
        expected |= {"NOT_FOUND"}  # an empty message names no model
    if name == "flat shape":
        expected |= {"RESOURCE_EXHAUSTED"}  # it says that it has 64 rows, for which there may be no room
    if name == "garbage for protobuf":
        expected |= {"NOT_FOUND", "INTERNAL", "UNKNOWN"}
    assert set(tally.hostile) <= expected


def test_what_is_no_message_is_refused_in_a_sentence_and_on_record(siege: Siege) -> None:
    before = len(records(siege.appliance.site))
    address = f"127.0.0.1:{siege.appliance.plaintext_port}"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(METHOD)(b"\xff" * 64, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "DecodeError" not in caught.value.details()
    assert [record["outcome"] for record in records(siege.appliance.site)[before:]] == ["invalid"]


@pytest.mark.parametrize("name", ["nobody hostile", "all at once"])
@pytest.mark.parametrize("models", [(ONE, TWO), (TWO, OTHER), (ONE, TWO, OTHER)], ids=["versions", "models", "both"])
def test_no_answer_is_of_another_model_or_version(siege: Siege, models: tuple[Model, ...], name: str) -> None:
    tally = siege.attack(name, *models, seed=2)
    assert tally.verdicts["right"] == tally.sent >= CALLS


def test_each_answer_is_on_record_once_under_its_callers_own_reference(siege: Siege) -> None:
    before = len(records(siege.appliance.site))
    tally = siege.attack("all at once", ONE, TWO, calls=300, seed=3)
    found = records(siege.appliance.site)
    answered = [r["client_reference"] for r in found[before:] if r["outcome"] == "answered" and "client_reference" in r]
    assert sorted(answered) == sorted(f"n-{number}" for number in tally.indexes.values())
    assert len(tally.indexes) == tally.sent
    for index, number in tally.indexes.items():
        assert found[index]["client_reference"] == f"n-{number}"
        rows = found[index]["input"]["rows"]
        assert rows == len(found[index]["output"]["top"])


def test_the_judge_tells_right_lost_duplicated_and_wrong_rows_apart() -> None:
    own, others = forge.logits(numbered(1, 3)), forge.logits(numbered(2, 3))
    assert judge(own, own) == "right"
    assert judge(own, own[:2]) == "lost"
    assert judge(own, own[[0, 0, 1]]) == "duplicated"
    assert judge(own, np.concatenate([own, others])) == "duplicated"
    assert judge(own, others) == "wrong"
    assert judge(own, own[:, :2]) == "wrong"


def test_no_two_callers_share_a_row() -> None:
    """The ground that all of this stands on: from a row's answer it can be told whose it is."""
    rows = np.concatenate([forge.logits(numbered(number, attacks.ROWS_MAX)) for number in range(1, 1501)])
    distances = (np.abs(rows[i + 1 :] - rows[i]).max(axis=1).min() for i in range(len(rows) - 1))
    assert min(distances) > 2 * attacks.WITHIN

"""The model card over mutual TLS: whoever may use a model may read it; of what does not answer yet, administrators may."""

from collections.abc import Callable, Iterator

import pytest

from appliance.client import CallFailed
from tests import forge
from tests.forge import Forge
from tests.running import Running, records, running

WATCHER = '[[access]]\ncaller = "DNS:watcher"\nroles = ["observe"]\nmodels = ["forged"]\n'
METHOD = "/appliance.v1.Administration/DescribeModel"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Version 1 answers; version 2 is installed."""
    vendor = Forge()
    first, second = vendor.version(1), vendor.version(2)
    site = vendor.site(tmp_path_factory.mktemp("cards"), [first], WATCHER)
    site.install(second)
    with running(site) as found:
        yield found


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(CallFailed) as caught:
        call()
    return caught.value.status


@pytest.mark.parametrize("who", ["reader", "watcher", "admin"])
def test_whoever_may_use_a_model_reads_its_card(appliance: Running, who: str) -> None:
    [digest] = [digest for digest, said in appliance.site.vendor.published.items() if said.version == 1]
    before = len(records(appliance.site))
    with appliance.client(who) as client:
        for version in (0, 1):
            found = client.describe_model("forged", version)
            assert (found.name, found.version, found.card) == ("forged", 1, forge.CARD.decode())
            assert found.digest == digest
    calls = [record for record in records(appliance.site)[before:] if record["method"] == METHOD]
    assert [(call["outcome"], call["caller"]["name"], call["model"]) for call in calls] == [
        ("answered", f"DNS:{who}", {"id": "forged", "version": 1, "digest": digest})
    ] * 2


@pytest.mark.parametrize(("who", "name", "version", "status"), [
    ("stranger", "forged", 0, "PERMISSION_DENIED"),
    ("watcher", "other", 0, "PERMISSION_DENIED"),
    ("reader", "forged", 2, "PERMISSION_DENIED"),  # it does not answer yet
    ("admin", "forged", 3, "FAILED_PRECONDITION"),
    ("admin", "Mrs. Nobody *1970", 1, "FAILED_PRECONDITION"),
])  # fmt: skip
def test_nobody_else_does_and_that_they_asked_is_on_record(
    appliance: Running, who: str, name: str, version: int, status: str
) -> None:
    before = len(records(appliance.site))
    with appliance.client(who) as client:
        assert refused(lambda: client.describe_model(name, version)) == status
    found = records(appliance.site)[before:]
    [call] = [record for record in found if record["event"] == "call"]
    assert (call["method"], call["caller"]["name"]) == (METHOD, f"DNS:{who}")
    assert call["outcome"] != "answered"
    assert "Nobody" not in str(found)


def test_an_administrator_reads_the_card_of_what_does_not_answer_yet(appliance: Running) -> None:
    before = len(records(appliance.site))
    with appliance.client("admin") as client:
        found = client.describe_model("forged", 2)
        assert [model.version for model in client.list_models().models] == [1], "and it does not answer by that"
    assert (found.version, found.card) == (2, forge.CARD.decode())
    act, call = [r for r in records(appliance.site)[before:] if r["event"] == "model.card" or r.get("method") == METHOD]
    assert act["model"] == {"id": "forged", "version": 2, "digest": found.digest}
    assert (act["outcome"], call["outcome"], act["request_id"]) == ("done", "answered", call["request_id"])

"""``ClassifyStream``: many studies over one call, each with its own record, answer or error."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.audit import proof
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import verify
from appliance.client import STAT, CallFailed, ClassifyRequest, Client
from tests import forge
from tests.audit import logs
from tests.forge import Forge
from tests.running import Running, running

RULE = '[[access]]\ncaller = "DNS:slow"\nroles = ["predict"]\nrows_per_s_max = 1\nrows_at_once_max = 2\n'


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Forge()
    with running(made.site(tmp_path_factory.mktemp("stream"), [made.bundle()], RULE)) as found:
        yield found


def client(appliance: Running, name: str = "reader") -> Client:
    folder = appliance.site.client(name)
    return Client.from_files(f"localhost:{appliance.port}", folder / "ca.crt", folder / "client.crt", folder / "client.key")


def test_each_request_of_a_stream_has_its_own_answer_or_error(appliance: Running) -> None:
    """More than may be under way at once, sent without waiting; every seventh is no image."""
    count = 200

    def studies() -> Iterator[ClassifyRequest]:
        for i in range(count):
            data = b"junk" if i % 7 == 3 else forge.png(forge.image(i))
            yield ClassifyRequest(model="forged", images=[data], client_reference=f"study-{i}", priority=STAT)

    with client(appliance) as calls:
        answers = {answer.number: answer for answer in calls.classify_stream(studies(), timeout_s=60)}
    assert sorted(answers) == list(range(count))
    for i, answer in answers.items():
        if i % 7 == 3:
            assert (answer.error.code, answer.error.message[:8]) == (3, "Image 0:")
        else:
            top = forge.logits(forge.image(i)[None]).argmax()
            assert answer.answer.results[0].label.name == ("one", "two", "three")[top]
    mine = [r for r in logs.records(appliance.site.root / "audit") if r.get("client_reference", "").startswith("study-")]
    assert sorted(int(r["client_reference"][6:]) for r in mine) == list(range(count))
    assert {r["outcome"] for r in mine} == {"answered", "invalid"}


def test_a_stream_that_is_broken_off_leaves_the_log_whole_and_the_appliance_serving(appliance: Running) -> None:
    def endless() -> Iterator[ClassifyRequest]:
        while True:
            yield ClassifyRequest(model="forged", images=[forge.png(forge.image(1))])

    with client(appliance) as calls:
        with pytest.raises(CallFailed, match="Deadline"):
            for _ in calls.classify_stream(endless(), timeout_s=0.5):
                pass
        assert calls.classify("forged", [forge.png(forge.image(1))]).results
    key = VerifierKey.decode((appliance.site.root / "audit" / "log.vkey").read_text())
    assert verify(appliance.site.root / "audit", key).size > 0


def test_a_caller_over_its_rate_is_told_when_to_come_back(appliance: Running) -> None:
    images = [forge.png(forge.image(1))]
    with client(appliance, "slow") as calls:
        with pytest.raises(CallFailed) as caught:  # at the third call, or a little later where this machine is slow
            list(map(calls.classify, ["forged"] * 50, [images] * 50))
        assert (caught.value.status, caught.value.retry_s is not None) == ("RESOURCE_EXHAUSTED", True)
        assert 0 < (caught.value.retry_s or 0) <= 1
        with pytest.raises(CallFailed, match="more than 2 rows under way"):
            calls.classify("forged", images * 3)


def test_a_receipt_proves_the_answer_offline(appliance: Running) -> None:
    with client(appliance) as calls:
        plain = calls.classify("forged", [forge.png(forge.image(2))])
        answer = calls.classify("forged", [forge.png(forge.image(2))], receipt=True, client_reference="kept")
    assert not plain.receipt
    key = VerifierKey.decode((appliance.site.root / "audit" / "log.vkey").read_text())
    index, record = proof.decode(answer.receipt, key)
    said = json.loads(record)
    assert (index, said["client_reference"], said["model"]["digest"]) == (answer.log_index, "kept", answer.model_digest)


def test_more_images_than_a_batch_are_one_request(appliance: Running, tmp_path: Path) -> None:
    images = [forge.image(i) for i in range(50)]
    with client(appliance) as calls:
        found = calls.classify("forged", list(map(forge.png, images)))
    tops = [forge.logits(image[None]).argmax() for image in images]
    assert [result.label.name for result in found.results] == [("one", "two", "three")[top] for top in tops]

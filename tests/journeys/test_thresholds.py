"""A threshold of the site's own, and inputs that are not those of the validation, at a real appliance."""

import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper

from appliance.bundle.manifest import Expected, OutputSpec, Unknown
from appliance.client import ABSTAIN, ACCEPT, OUT_OF_DISTRIBUTION, CallFailed, Client
from appliance.model import unknown
from appliance.model.unknown import Mahalanobis
from appliance.v1 import administration_pb2 as pb
from tests import forge
from tests.cli.running import run
from tests.forge import Forge, ForgedSite
from tests.running import records, running

OFTEN = ("-c", "from appliance import acts, cli; acts.TICK_S = 0.05; cli.main()")
NEVER = pb.Override(accept_at_least_e6=1_000_000)


def confidence(seed: int) -> float:
    row = forge.logits(forge.image(seed)[None])[0].astype(np.float64)
    return float(1 / np.exp(row - row.max()).sum())


SURE = next(seed for seed in range(1000) if 0.6 < confidence(seed) < 0.9)
IMAGE = forge.png(forge.image(SURE))


def decided(client: Client) -> int:
    [result] = client.classify("forged", [IMAGE]).results
    return int(result.decision)


def calls(site: ForgedSite) -> list[dict[str, Any]]:
    """The records of predictions."""
    return [record for record in records(site) if record["event"] == "call" and "output" in record]


def test_a_threshold_decides_over_restarts_until_it_is_as_signed_again(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site) as appliance, appliance.client("admin") as client:
        assert decided(client) == ACCEPT
        said = client.set_threshold("forged", 1, NEVER, "nobody has looked at the new scanner yet")
        assert said.override == NEVER
        assert decided(client) == ABSTAIN
        [shown] = client.list_models().models
        assert shown.override == NEVER
        assert appliance.stop() == 0
    with running(site) as appliance, appliance.client("admin") as client:
        assert decided(client) == ABSTAIN
        assert not client.set_threshold("forged", 1, None, "the new scanner is as the old one").HasField("override")
        assert decided(client) == ACCEPT
        assert not client.list_models().models[0].HasField("override")
    acts = [record for record in records(site) if record["event"] == "model.threshold"]
    assert [(act["outcome"], act["caller"]["name"]) for act in acts] == [("done", "DNS:admin")] * 2
    assert acts[0]["detail"] == {
        "reason": "nobody has looked at the new scanner yet", "accept_at_least_e6": 1_000_000,
    }  # fmt: skip
    assert acts[1]["detail"] == {"reason": "the new scanner is as the old one"}
    overridden = [record["model"].get("override") for record in calls(site)]
    assert overridden == [None, {"accept_at_least_e6": 1_000_000}, {"accept_at_least_e6": 1_000_000}, None]
    assert [record["output"]["decisions"] for record in calls(site)] == ["A", "B", "B", "A"]


def test_each_threshold_is_set_for_itself_and_stays_until_it_is_set_again(tmp_path: Path) -> None:
    """At a model that tells unknown inputs: by the distance of its embedding, which is the forged product."""
    made, graph = Forge(), forge.model()
    graph.graph.output.append(helper.make_tensor_value_info("product", TensorProto.FLOAT, ["batch", forge.CLASSES]))
    reference = unknown.encode(Mahalanobis(np.zeros((3, 3), np.float32), np.eye(3, dtype=np.float32)))
    knowing = forge.manifest(
        outputs=OutputSpec("logits", "product"),
        decision=replace(forge.RULE, unknown=Unknown("mahalanobis", 1_000_000_000)),
    )
    content = forge.parts() | {"graph": graph.SerializeToString(), "reference": reference}
    site = made.site(tmp_path, [made.bundle(knowing, content)])
    with running(site) as appliance, appliance.client("admin") as client:
        assert decided(client) == ACCEPT
        client.set_threshold("forged", 1, NEVER, "a reason")
        said = client.set_threshold("forged", 1, pb.Override(reject_above_e6=0), "another")
        assert said.override == pb.Override(accept_at_least_e6=1_000_000, reject_above_e6=0)
        assert decided(client) == OUT_OF_DISTRIBUTION
        said = client.set_threshold("forged", 1, pb.Override(reject_above_e6=1_000_000_000), "as it was")
        assert said.override == NEVER
        assert decided(client) == ABSTAIN
        client.set_threshold("forged", 1, None, "all as it was")
        assert decided(client) == ACCEPT
    index = next(r["index"] for r in calls(site) if r["output"]["decisions"] == "O")
    image = tmp_path / "image.png"
    image.write_bytes(IMAGE)
    ran = run("audit", "prove", "--image", image, index, site.root)
    assert (
        "decision O, by an operator's act and not as signed: it accepts at 1 or more and takes for unknown above 0."
        in ran.err
    )


def test_only_who_administers_sets_a_threshold_and_only_one_that_the_model_has(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site) as appliance:
        with appliance.client("reader") as reader, pytest.raises(CallFailed) as caught:
            reader.set_threshold("forged", 1, NEVER, "a reason")
        assert caught.value.status == "PERMISSION_DENIED"
        with appliance.client("admin") as client:
            for override, sentence in (
                (pb.Override(reject_above_e6=5), "this model does not tell unknown inputs"),
                (pb.Override(accept_at_least_e6=1_000_001), "a threshold of max_probability is from 0 to 1"),
                (pb.Override(), "say which thresholds are to count"),
            ):
                with pytest.raises(CallFailed, match=sentence) as refused:
                    client.set_threshold("forged", 1, override, "a reason")
                assert (refused.value.status, refused.value.reason) == ("FAILED_PRECONDITION", "config")
            assert decided(client) == ACCEPT
    acts = [record for record in records(site) if record["event"] == "model.threshold"]
    assert [act["outcome"] for act in acts] == ["failed"] * 3
    [denied] = [r for r in records(site) if r["event"] == "call" and r["outcome"] == "denied"]
    assert denied["method"] == "/appliance.v1.Administration/SetThreshold"


def test_a_kill_right_after_the_answer_forgets_no_threshold(tmp_path: Path) -> None:
    """Nor does an older copy of what the site remembers: the log is what counts."""
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site) as appliance, appliance.client("admin") as client:
        before = (site.root / "state.json").read_bytes()
        client.set_threshold("forged", 1, NEVER, "a reason")
        appliance.process.kill()
        appliance.process.wait()
    (site.root / "state.json").write_bytes(before)
    with running(site) as appliance, appliance.client("admin") as client:
        assert decided(client) == ABSTAIN
    assert "state.recall" in [record["event"] for record in records(site)]


@pytest.mark.parametrize("overridden", [False, True])
def test_decisions_that_are_not_those_of_the_validation_sound_an_alarm(tmp_path: Path, overridden: bool) -> None:
    """Half were to abstain and none does: it is heard about, whatever threshold the site has set."""
    made = Forge()
    expected = Expected(10_000, 5_000, 0)
    site = made.site(tmp_path, [made.bundle(forge.manifest(decision=replace(forge.RULE, expected=expected)))])
    with running(site, program=OFTEN) as appliance:
        with appliance.client("admin") as client:
            if overridden:
                client.set_threshold("forged", 1, NEVER, "a reason")
        with appliance.channel("reader") as channel:
            classify(channel, [IMAGE, IMAGE], 100)
        sentence = "it abstains on 0.0% of its last 200 rows, of those of its validation 50.0%"
        assert any(f"alarm begins: forged 1: {sentence}" in line for line in appliance.process.stdout or ())
        with urllib.request.urlopen(f"http://127.0.0.1:{appliance.metrics_port}/metrics", timeout=10) as page:
            metrics = page.read().decode()
        assert 'appliance_share{decision="abstain",model="forged",version="1"} 0.0' in metrics
        assert 'appliance_share_expected{decision="abstain",model="forged",version="1"} 0.5' in metrics
        assert appliance.stop() == 0
    alarms = [record["detail"] for record in records(site) if record["event"] == "alarm"]
    assert {"kind": "drift_abstain", "subject": "forged 1", "on": 1} in alarms
    assert ({"kind": "threshold_overridden", "subject": "forged 1", "on": 1} in alarms) == overridden
    assert {record["output"]["decisions"] for record in calls(site)} == {"BB" if overridden else "AA"}


def classify(channel: grpc.Channel, images: list[bytes], times: int) -> None:
    client = Client(channel)
    for _ in range(times):
        client.classify("forged", images)

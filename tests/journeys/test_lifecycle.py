"""From start to SIGTERM, and again: what a restart, a failing disk and a refused model do."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from appliance import trust
from appliance.audit.checkpoint import VerifierKey
from appliance.audit.verify import verify
from appliance.bundle.manifest import ModelId
from appliance.oip import open_inference_pb2 as oip
from appliance.site import Site
from appliance.v1 import administration_pb2 as pb
from appliance.v1.administration_pb2_grpc import AdministrationStub
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.journeys.test_serving import infer, refused
from tests.running import END_S_MAX, records, running

ZEROS = np.zeros((1, 8, 8, 1), np.uint8)


def verified(site: ForgedSite) -> int:
    """The size of the site's log, once all of it has been checked."""
    key = VerifierKey.decode((site.root / "audit" / "log.vkey").read_text())
    return verify(site.root / "audit", key).size


def serve(site: ForgedSite) -> "subprocess.CompletedProcess[str]":
    """Starts an appliance that is expected to refuse to serve."""
    command = [sys.executable, "-m", "appliance", "serve", "--config", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=END_S_MAX, check=False)


def test_sigterm_answers_what_was_accepted_and_exits_zero(tmp_path: Path) -> None:
    made = Forge()
    with running(made.site(tmp_path, [made.bundle()])) as appliance, ThreadPoolExecutor(8) as pool:
        stub = appliance.inference("reader")
        stub.ModelInfer(infer(ZEROS))

        def call(i: int) -> str:
            if i == 40:
                appliance.process.send_signal(signal.SIGTERM)
            try:
                return str(stub.ModelInfer(infer(ZEROS), timeout=20).model_name)
            except grpc.RpcError as error:
                return str(error.code().name)

        outcomes = Counter(pool.map(call, range(300)))
        assert appliance.stop() == 0
    # A call is answered, or never begins: grpc says CANCELLED of one that arrives in the instant the port closes.
    assert set(outcomes) <= {"forged", "UNAVAILABLE", "CANCELLED"}
    calls = [record["outcome"] for record in records(appliance.site) if record["event"] == "call"]
    assert calls == ["answered"] * (1 + outcomes["forged"])
    events = [record["event"] for record in records(appliance.site)]
    assert (events[0], events[-1]) == ("start", "stop")
    assert verified(appliance.site) == len(events)


def test_the_log_goes_on_after_a_restart_and_after_kill(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site) as appliance:
        index = appliance.inference("reader").ModelInfer(infer(ZEROS)).parameters["log_index"].int64_param
        appliance.process.kill()
        appliance.process.wait()
    assert records(site)[index]["outcome"] == "answered"
    with running(site) as appliance:
        again = appliance.inference("reader").ModelInfer(infer(ZEROS)).parameters["log_index"].int64_param
        assert again > index
        assert appliance.stop() == 0
    assert verified(site) == len(records(site))


def test_a_second_appliance_at_one_site_is_refused(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site):
        second = serve(site)
    assert second.returncode == 4
    assert "is in use" in second.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which injects the failure, is not installed")
def test_without_a_durable_record_there_is_no_answer(tmp_path: Path) -> None:
    """The disk fails under the log: the caller is told, health turns, the process ends; a restart goes on."""
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    wrapper = ["strace", "-f", "-qq", "-o", tmp_path / "trace", "-e", "trace=fdatasync"]
    fails = ["-e", "inject=fdatasync:error=EIO:when=6+"]
    with running(site, [*wrapper, *fails]) as appliance:
        stub = appliance.inference("reader")
        statuses = set()
        for _ in range(10):
            try:
                stub.ModelInfer(infer(ZEROS), timeout=10)
            except grpc.RpcError as error:
                statuses.add((error.code().name, error.details()))
                break
        assert statuses == {("UNAVAILABLE", "No audit record can be written, so there is no answer.")}
        assert appliance.process.wait(timeout=END_S_MAX) == 4
    with running(site) as appliance:
        assert appliance.inference("reader").ModelInfer(infer(ZEROS)).model_name == "forged"
        assert appliance.stop() == 0
    assert verified(site) == len(records(site))


def test_a_model_that_is_refused_leaves_the_others_serving_and_says_why(tmp_path: Path) -> None:
    made = Forge()
    wrong = forge.parts() | {"selftest": forge.golden(1).encode()}
    good, bad = made.bundle(), made.bundle(forge.manifest(model=ModelId("wrong", 1, 1)), wrong)
    site = made.site(tmp_path, [good, bad])
    with running(site) as appliance, appliance.client("admin") as client:
        assert [model.name for model in client.list_models().models] == ["forged"]
        assert refused(lambda: client.classify("wrong", [forge.png(forge.image(0))]))[0] == "NOT_FOUND"
        assert client.serves("forged")
    loads = {record["model"]["id"]: record for record in records(site) if record["event"] == "model.load"}
    assert loads["forged"]["outcome"] == "done"
    assert (loads["wrong"]["outcome"], loads["wrong"]["error"]) == ("failed", "failed_golden_case")


def test_two_models_serve_side_by_side(tmp_path: Path) -> None:
    made = Forge()
    other = made.bundle(forge.manifest(model=ModelId("other", 3, 1), bundle_id="ff" * 16))
    with running(made.site(tmp_path, [made.bundle(), other])) as appliance:
        stub = appliance.inference("admin")
        request = infer(ZEROS)
        request.model_name, request.model_version = "other", "3"
        assert stub.ModelInfer(request).model_version == "3"
        assert stub.ModelInfer(infer(ZEROS)).model_version == "1"


def test_an_altered_bundle_never_serves(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    bundle = next(Site(site.root).installed()).bundle
    data = bytearray(bundle.read_bytes())
    data[-1] ^= 1
    bundle.write_bytes(data)
    ended = serve(site)
    assert ended.returncode == 3
    assert "not what was signed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_grant_is_said_in_a_sentence(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    next(Site(site.root).installed()).grant.unlink()
    ended = serve(site)
    assert (ended.returncode, ended.stderr) == (3, "appliance: The installed bundle's grant cannot be read.\n")


def test_a_log_directory_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    shutil.rmtree(site.root / "audit")
    (site.root / "audit").write_text("a file where the log should be")
    ended = serve(site)
    assert (ended.returncode, ended.stderr.count("\n")) == (4, 1)
    assert "cannot be read or written" in ended.stderr


def test_every_problem_of_a_configuration_is_said_at_once(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()], "[limits]\nqueue_rows_max = -5\nqueue_rows_min = 1\n")
    (site.root / "tls" / "server.key").unlink()
    ended = serve(site)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 3


def test_a_site_whose_path_is_too_long_for_its_socket_is_said_in_a_sentence(tmp_path: Path) -> None:
    made = Forge()
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    ended = serve(made.site(deep, [made.bundle()]))
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "too long: with operator.sock over 107 bytes" in ended.stderr


def test_the_operators_socket_is_the_owners_alone_and_a_stale_one_does_no_harm(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    with running(site) as appliance:
        assert stat.S_IMODE((site.root / "operator.sock").stat().st_mode) == 0o600
        appliance.process.kill()
        appliance.process.wait()
    assert (site.root / "operator.sock").exists()
    with running(site):
        pass


def test_a_running_appliance_looks_after_its_site(tmp_path: Path) -> None:
    """Alarms begin while it serves: in its log, in its metrics and on record."""
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    often = "from appliance import acts, cli; acts.TICK_S = 0.05; cli.main()"
    with running(site, program=("-c", often)) as appliance:
        next(site.site.installed()).grant.unlink()
        assert any("alarm begins: forged 1: it cannot start again" in line for line in appliance.process.stdout or ())
        assert appliance.stop() == 0
    alarm = next(record for record in records(site) if record["event"] == "alarm")
    assert alarm["detail"] == {"kind": "cannot_start", "subject": "forged 1", "on": 1}


def test_health_follows_an_act_whose_caller_has_gone(tmp_path: Path) -> None:
    """A load balancer would otherwise send nobody to a model that serves, or everybody to one that does not."""
    made = Forge()
    bundle = made.bundle()
    site = made.site(tmp_path)
    site.install(bundle)
    made.say(site.repository)
    site.trust()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    held = f"""
from appliance import cli, registry
load = registry.load
def held(*arguments):
    open({str(gate)!r}).read()
    return load(*arguments)
registry.load = held
cli.main()
"""
    with running(site, program=("-c", held)) as appliance:
        channel = appliance.channel("admin")
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        activation = AdministrationStub(channel).ActivateModel.future(pb.ActivateModelRequest(name="forged", version=1))
        with gate.open("w"):  # the model is being loaded now
            assert activation.cancel()
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()


def test_one_bundle_comes_in_at_a_time_and_none_for_ever(tmp_path: Path) -> None:
    made = Forge()
    site = made.site(tmp_path, [made.bundle()])
    soon = "from appliance import cli; from appliance.server import administration as a; a.STREAM_S_MAX = 1; cli.main()"
    with running(site, program=("-c", soon)) as appliance:
        stub, never = AdministrationStub(appliance.channel("admin")), threading.Event()

        def stalled() -> Iterator[pb.InstallModelRequest]:
            yield pb.InstallModelRequest(grant=b"x", bundle=b"x")
            never.wait(END_S_MAX)

        first = stub.InstallModel.future(stalled())
        while not list(site.site.incoming.iterdir()):
            assert not first.done()
        code, sentence = refused(lambda: stub.InstallModel(iter([pb.InstallModelRequest(bundle=b"y")])))
        assert (code, "Another bundle is coming in" in sentence) == ("RESOURCE_EXHAUSTED", True)
        assert first.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "stopped coming for 1 seconds" in first.details()
        never.set()
        assert list(site.site.incoming.iterdir()) == []


def test_an_appliance_without_a_model_waits_for_one(tmp_path: Path) -> None:
    """Not ready for load balancers, and there for its operator."""
    made = Forge()
    bundle = made.bundle()
    site = made.site(tmp_path)
    made.say(site.repository)
    (tmp_path / "bundle").write_bytes(bundle)
    with running(site) as appliance, appliance.client("admin") as client:
        assert not client.serves()
        client.update_trust(trust.read_medium(site.medium))
        client.install_model(tmp_path / "bundle", made.grant_today(bundle))
        client.activate_model("forged", 1)
        assert client.serves()
        assert client.serves("forged")
        assert client.classify("forged", [forge.png(forge.image(1))]).version == 1


def test_the_plaintext_listener_is_off_unless_asked_for_and_has_its_own_role(tmp_path: Path) -> None:
    made = Forge()
    settings = '[server.plaintext]\naddress = "127.0.0.1:0"\nroles = ["observe"]\n'
    with running(made.site(tmp_path, [made.bundle()], settings)) as appliance:
        with grpc.insecure_channel(f"127.0.0.1:{appliance.plaintext_port}") as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert oip.ServerLiveResponse.FromString(live(b"")).live
            asked = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            assert refused(lambda: asked(infer(ZEROS).SerializeToString()))[0] == "PERMISSION_DENIED"
        assert records(appliance.site)[-1]["caller"]["name"] == "LOCAL:plaintext"


def test_it_answers_soon_after_its_start(tmp_path: Path) -> None:
    """Golden cases pass before the first answer: a call during the start is told to come back, never answered early."""
    made = Forge()
    with running(made.site(tmp_path, [made.bundle()])) as appliance:
        assert [line["event"] for line in appliance.lines if line["event"] != "log"] == ["listening", "serving"]
    loaded = [record["event"] for record in records(appliance.site)].index("model.load")
    assert all(record["outcome"] != "answered" for record in records(appliance.site)[:loaded])

"""A new version takes over while calls come in: none fails, each is answered by exactly one version, and whole."""

import statistics
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import grpc
import numpy as np
import onnx
import pytest

from appliance.bundle.manifest import ModelId
from appliance.client import CallFailed, Client
from appliance.oip import open_inference_pb2 as oip
from appliance.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests import forge
from tests.forge import Forge, ForgedSite
from tests.journeys.test_serving import infer
from tests.running import Running, running

CALLERS, SWITCHES = 4, 20


def answering(vendor: Forge, number: int) -> bytes:
    """A version of the forged model whose every logit is higher by its number, so that an answer says which it is of."""
    model = forge.model()
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(forge.B + np.float32(number), "B"))
    golden = forge.golden(number)
    changed = {"graph": model.SerializeToString(), "selftest": golden.encode()}
    made = forge.manifest(model=ModelId("forged", number, 1), bundle_id=f"{number:032x}")
    return vendor.bundle(made, forge.parts() | changed)


def site_with(folder: Path, vendor: Forge, *bundles: bytes) -> ForgedSite:
    """The first of these bundles is active; the others are installed."""
    site = vendor.site(folder, bundles[:1])
    for bundle in bundles[1:]:
        site.install(bundle)
    vendor.say(site.repository)
    site.trust()
    return site


def switch(operator: Client, times: int) -> None:
    """Forward to version 2, back to version 1, and so on."""
    for turn in range(times):
        if turn % 2:
            operator.roll_back_model("forged", 1, "back again")
        else:
            operator.activate_model("forged", 2)


def test_a_thousand_calls_over_twenty_switches_are_all_answered_by_one_version_each(tmp_path: Path) -> None:
    vendor = Forge()
    one, two = answering(vendor, 1), answering(vendor, 2)
    digests = {vendor.publish(one): 1, vendor.publish(two): 2}
    site = site_with(tmp_path, vendor, one, two)
    images = np.stack([forge.image(seed) for seed in range(2)])
    answered: Counter[int] = Counter()
    switching = threading.Event()
    switching.set()

    def caller(stub: GRPCInferenceServiceStub) -> list[int]:
        seen = []
        while switching.is_set() or len(seen) < 1000 // CALLERS:
            answer = stub.ModelInfer(infer(images))
            number = digests[answer.parameters["model_digest"].string_param]
            logits = np.frombuffer(answer.raw_output_contents[1], "<f4").reshape(2, 3)
            assert np.allclose(logits, forge.logits(images) + number, atol=1e-3), "of another version than it says"
            assert answer.model_version == str(number)
            seen.append(number)
        return seen

    with (
        running(site) as appliance,
        Client.on_socket(site.root / "operator.sock") as operator,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        calls = [pool.submit(caller, stub) for stub in [appliance.inference("reader") for _ in range(CALLERS)]]
        try:
            switch(operator, SWITCHES)
        finally:
            switching.clear()
        for call in calls:
            answered.update(call.result())
        assert appliance.stop() == 0
    assert answered.total() >= 1000
    assert set(answered) == {1, 2}, "both versions were really asked"


def test_versions_are_asked_for_by_number_in_both_protocols(tmp_path: Path) -> None:
    vendor = Forge()
    site = site_with(tmp_path, vendor, answering(vendor, 1), answering(vendor, 2), answering(vendor, 3))
    images = forge.image(5)[None]

    def ask(appliance: Running, number: int) -> tuple[str, float]:
        request = infer(images)
        request.model_version = str(number or "")
        answer = appliance.inference("reader").ModelInfer(request)
        return answer.model_version, float(np.frombuffer(answer.raw_output_contents[1], "<f4")[0])

    with running(site) as appliance, Client.on_socket(site.root / "operator.sock") as operator:
        operator.activate_model("forged", 2)
        base = float(forge.logits(images)[0, 0])
        for number, expected in ((0, 2), (2, 2), (1, 1)):
            version, logit = ask(appliance, number)
            assert (version, logit) == (str(expected), pytest.approx(base + expected, abs=1e-3))
            with appliance.client("reader") as client:
                assert client.classify("forged", [forge.png(images[0])], version=number).version == expected
        described = appliance.inference("reader").ModelMetadata(oip.ModelMetadataRequest(name="forged"))
        assert sorted(described.versions) == ["1", "2"]
        operator.activate_model("forged", 3)
        with pytest.raises(grpc.RpcError) as refused:
            ask(appliance, 1)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        assert ask(appliance, 2)[0] == "2"


def test_activation_over_the_network_needs_the_role_and_a_failed_one_leaves_the_old_one_serving(tmp_path: Path) -> None:
    vendor = Forge()
    broken = vendor.bundle(
        forge.manifest(model=ModelId("forged", 2, 1)),
        forge.parts() | {"selftest": forge.golden(1).encode()},
    )
    site = site_with(tmp_path, vendor, answering(vendor, 1), broken, answering(vendor, 3))
    with running(site) as appliance:
        with appliance.client("reader") as reader, pytest.raises(CallFailed) as denied:
            reader.activate_model("forged", 3)
        assert denied.value.status == "PERMISSION_DENIED"
        with appliance.client("admin") as admin:
            with pytest.raises(CallFailed) as failed:
                admin.activate_model("forged", 2)
            assert (failed.value.status, failed.value.reason) == ("FAILED_PRECONDITION", "failed_golden_case")
            assert "golden cases" in str(failed.value)
            assert [(model.version, model.active) for model in admin.list_models().models] == [(1, True)]
            admin.activate_model("forged", 3)
            assert {(model.version, model.active) for model in admin.list_models().models} == {(1, False), (3, True)}
            assert admin.serves("forged")
            admin.deactivate_model("forged", "recalled")
            assert not admin.serves("forged")
            assert not admin.serves()


@pytest.mark.soak
@pytest.mark.parametrize("mebibytes", [45, 100])
def test_latency_before_during_and_after_a_switch(tmp_path: Path, mebibytes: int) -> None:
    """Prints figures. What it asserts is that nothing failed: a time is never a test."""
    vendor = Forge()
    site = site_with(tmp_path, vendor, vendor.large(1, mebibytes), vendor.large(2, mebibytes))
    times: list[tuple[float, float]] = []
    stop = threading.Event()

    def caller(appliance: Running) -> None:
        stub = appliance.inference("reader")
        while not stop.is_set():
            started = perf_counter()
            stub.ModelInfer(infer(forge.image(1)[None]))
            times.append((started, perf_counter() - started))

    with running(site) as appliance, Client.on_socket(site.root / "operator.sock") as operator:
        thread = threading.Thread(target=caller, args=(appliance,))
        thread.start()
        while len(times) < 1000:
            thread.join(0.1)
        acts = []
        for turn in range(10):
            started = perf_counter()
            switch(operator, 1) if turn % 2 == 0 else operator.roll_back_model("forged", 1, "back again")
            acts.append((started, perf_counter()))
        enough = len(times) + 1000
        while len(times) < enough:
            thread.join(0.1)
        stop.set()
        thread.join()
    phases = {
        "before": [taken for at, taken in times if at < acts[0][0]],
        "during": [taken for at, taken in times if acts[0][0] <= at <= acts[-1][1]],
        "after": [taken for at, taken in times if at > acts[-1][1]],
    }
    print(f"\n{mebibytes} MiB, {len(acts)} switches of {statistics.median(b - a for a, b in acts):.2f} s each:")
    for phase, taken in phases.items():
        p50, p99 = (1e3 * np.quantile(taken, q) for q in (0.5, 0.99))
        print(f"  {phase:7} {len(taken):5} calls  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  longest {1e3 * max(taken):6.1f} ms")

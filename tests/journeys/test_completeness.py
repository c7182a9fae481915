"""Every method of every service, asked by everybody in every way: exactly one record of each call, and none of nothing."""

import urllib.request
from collections.abc import Iterator
from itertools import product

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from appliance.oip import open_inference_pb2 as oip
from appliance.v1 import administration_pb2, classification_pb2
from tests.forge import Forge
from tests.isolation.besieged import heard
from tests.running import Running, records, running

SERVICES = [
    service
    for file in (oip.DESCRIPTOR, classification_pb2.DESCRIPTOR, administration_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
]
METHODS = [method for service in SERVICES for method in service.methods]
CALLERS = ("reader", "admin", "auditor", "stranger")
MESSAGES = {"an empty message": b"", "no message": b"\xff\xff\xff", "another's message": b"\x0a\x05other\x98\x75\x01"}
REFUSALS = {"INVALID_ARGUMENT", "PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
AUDITOR = '[[access]]\ncaller = "DNS:auditor"\nroles = ["audit"]\n'


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, list[str]]]:
    """An appliance, and the lines that it prints."""
    vendor = Forge()
    site = vendor.site(tmp_path_factory.mktemp("complete"), [vendor.bundle()], AUDITOR)
    with running(site) as found, heard(found) as lines:
        yield found, lines


@pytest.fixture(scope="module")
def appliance(log: tuple[Running, list[str]]) -> Running:
    return log[0]


def ask(channel: grpc.Channel, method: MethodDescriptor, message: bytes) -> str:
    """The status of a call with one message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kind = ("unary" if not method.client_streaming else "stream") + "_" + ("stream" if method.server_streaming else "unary")
    call = getattr(channel, kind)(path)
    try:
        answer = call(iter([message]) if method.client_streaming else message, timeout=20)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_each_call_of_each_method_is_on_record_exactly_once(appliance: Running, method: MethodDescriptor) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    for caller, (what, message) in product(CALLERS, MESSAGES.items()):
        before = len(records(appliance.site))
        with appliance.channel(caller) as channel:
            status = ask(channel, method, message)
        calls = [record for record in records(appliance.site)[before:] if record["event"] == "call"]
        assert [record["method"] for record in calls] == [path], f"{caller}, {what}: {status}"
        [record] = calls
        assert record["caller"]["name"] == f"DNS:{caller}"
        in_stream = method.name == "ClassifyStream"  # whose refusals are messages
        assert (record["outcome"] == "answered") == (status == "OK" and not (in_stream and "error" in record))
        assert status == "OK" or status in REFUSALS
        if caller == "stranger":
            assert (record["outcome"], record["error"]) == ("denied", "permission_denied")


def test_nothing_of_a_callers_bytes_is_in_the_log_or_said_again(log: tuple[Running, list[str]]) -> None:
    """Markers in every place that a caller can fill: names, references, metadata, parameters, files, garbage."""
    appliance, lines = log
    mark = "zzMaryNobodyzz"
    request = oip.ModelInferRequest(model_name=mark.upper() + " ", model_version=mark, id=f"{mark} 1970-01-01")
    request.parameters[mark].string_param = mark
    request.inputs.add(name=mark, datatype=mark, shape=[1]).parameters[mark].string_param = mark
    request.outputs.add(name=mark).parameters["classification"].string_param = mark
    request.raw_input_contents.append(mark.encode())
    classify = classification_pb2.ClassifyRequest(
        model=f"forged {mark}", client_reference=f"{mark}!", images=[mark.encode()]
    )
    text = classification_pb2.ClassifyRequest(model="forged", texts=[mark, f"{mark} {mark}"])
    image = classification_pb2.ClassifyRequest(model="forged", images=[b"\x89PNG\r\n\x1a\n" + mark.encode() * 9])
    with appliance.channel("admin", mark.lower()) as admin, appliance.channel("reader") as reader:
        for channel, path, message in (
            (reader, "/inference.GRPCInferenceService/ModelInfer", request),
            (reader, "/inference.GRPCInferenceService/ModelConfig", oip.ModelConfigRequest(name=mark, version=mark)),
            (reader, "/appliance.v1.Classification/Classify", classify),
            (reader, "/appliance.v1.Classification/Classify", image),
            (reader, "/appliance.v1.Classification/Classify", text),
            (admin, "/appliance.v1.Administration/ActivateModel", administration_pb2.ActivateModelRequest(name=f"{mark} x")),
            (
                admin,
                "/appliance.v1.Administration/UpdateTrust",
                administration_pb2.UpdateTrustRequest(files={mark: mark.encode()}),
            ),
        ):
            with pytest.raises(grpc.RpcError) as caught:  # the caller is told, in words of ours
                channel.unary_unary(path)(message.SerializeToString(), metadata=[("x-patient", mark), (mark.lower(), mark)])
            assert mark not in (caught.value.details() or "")
    written = b"".join(path.read_bytes() for path in (appliance.site.root / "audit").glob("*.log")).decode(errors="replace")
    with urllib.request.urlopen(f"http://127.0.0.1:{appliance.metrics_port}/metrics", timeout=10) as page:
        metrics = page.read().decode()
    for where in (written, metrics, "".join(lines)):
        assert mark.lower() not in where.lower()
    assert len(written) > 1000 < len(metrics)

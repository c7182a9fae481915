"""A real appliance over real connections: what a caller sees, and what is on record afterwards."""

import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from appliance.client import CallFailed
from appliance.oip import open_inference_pb2 as oip
from tests import forge
from tests.forge import Forge
from tests.running import Running, records, running


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Forge()
    with running(made.site(tmp_path_factory.mktemp("serving"), [made.bundle()])) as found:
        yield found


def infer(images: np.ndarray, **changes: object) -> oip.ModelInferRequest:
    """A valid request for raw pixels, uint8 ``[N, 8, 8, 1]``; ``changes`` replace fields of its one input."""
    request = oip.ModelInferRequest(model_name="forged", raw_input_contents=[images.tobytes()])
    request.inputs.add(**({"name": "image", "datatype": "UINT8", "shape": images.shape} | changes))
    return request


def bomb() -> bytes:
    """A PNG whose header promises 50,000 × 50,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the sentence of a call that must fail."""
    with pytest.raises((CallFailed, grpc.RpcError)) as caught:
        call()
    error = caught.value
    if isinstance(error, CallFailed):
        return error.status, str(error)
    return error.code().name, error.details()


def test_an_answer_is_the_models_and_on_record(appliance: Running) -> None:
    picture = forge.image(100)
    with appliance.client("reader") as client:
        answer = client.classify("forged", [forge.png(picture)], client_reference="case-17")
    wanted = forge.logits(picture[None])[0]
    assert answer.results[0].label.name == ("one", "two", "three")[int(wanted.argmax())]
    record = records(appliance.site)[answer.log_index]
    assert record["outcome"] == "answered"
    assert record["caller"]["name"] == "DNS:reader"
    assert record["client_reference"] == "case-17"
    assert record["request_id"] == answer.request_id
    assert record["model"]["digest"] == answer.model_digest
    assert record["output"]["top"] == [int(wanted.argmax())]


def test_raw_and_encoded_rows_have_the_same_answer(appliance: Running) -> None:
    pictures = np.stack([forge.image(seed) for seed in range(5)])
    stub = appliance.inference("reader")
    raw = stub.ModelInfer(infer(pictures))
    encoded = oip.ModelInferRequest(model_name="forged")
    tensor = encoded.inputs.add(name="image", datatype="BYTES", shape=[5])
    tensor.contents.bytes_contents.extend(forge.png(picture) for picture in pictures)
    names = [output.name for output in raw.outputs]
    assert names == ["probabilities", "logits", "label", "decision"]
    logits = np.frombuffer(raw.raw_output_contents[1], "<f4").reshape(5, 3)
    np.testing.assert_allclose(logits, forge.logits(pictures), atol=1e-4)
    assert raw.raw_output_contents == stub.ModelInfer(encoded).raw_output_contents


BAD_REQUESTS = {
    "wrong dtype": infer(np.zeros((1, 8, 8, 1), np.uint8), datatype="FP32"),
    "wrong shape": infer(np.zeros((1, 8, 9, 1), np.uint8)),
    "negative rows": infer(np.zeros((1, 8, 8, 1), np.uint8), shape=[-1, 8, 8, 1]),
    "no shape": infer(np.zeros((1, 8, 8, 1), np.uint8), shape=[]),
    "wrong byte length": infer(np.zeros((1, 8, 8, 1), np.uint8), shape=[2, 8, 8, 1]),
    "empty batch": infer(np.zeros((0, 8, 8, 1), np.uint8)),
    "batch over the limit": infer(np.zeros((1025, 8, 8, 1), np.uint8)),
    "no input": oip.ModelInferRequest(model_name="forged"),
    "unknown input": infer(np.zeros((1, 8, 8, 1), np.uint8), name="picture"),
    "version that is not a number": oip.ModelInferRequest(model_name="forged", model_version="latest"),
    "cut off elements": oip.ModelInferRequest(
        model_name="forged",
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [1]}],
        raw_input_contents=[b"\xff\xff\xff\xff"],
    ),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_a_bad_tensor_is_refused_in_a_sentence_and_on_record(appliance: Running, what: str) -> None:
    before = len(records(appliance.site))
    status, sentence = refused(lambda: appliance.inference("reader").ModelInfer(BAD_REQUESTS[what]))
    assert status == "INVALID_ARGUMENT"
    assert sentence.endswith(".")
    assert [record["outcome"] for record in records(appliance.site)[before:]] == ["invalid"]


@pytest.mark.parametrize(
    "image",
    [forge.png(forge.image(1))[:-20], b"\xff\xd8\xff\xe0" + bytes(30), bomb(), b"", b"GIF89a" + bytes(50)],
    ids=["truncated PNG", "truncated JPEG", "50,000 x 50,000 header", "nothing", "another format"],
)
def test_a_bad_image_is_refused_by_its_position_and_on_record(appliance: Running, image: bytes) -> None:
    before = len(records(appliance.site))
    with appliance.client("reader") as client:
        status, sentence = refused(lambda: client.classify("forged", [forge.png(forge.image(1)), image]))
    assert status == "INVALID_ARGUMENT"
    assert sentence.startswith("Image 1: ")
    record = records(appliance.site)[before]
    assert record["outcome"] == "invalid"
    assert record["input"]["rows"] == 2  # what was received is on record, though it could not be used


@pytest.mark.parametrize(
    ("caller", "model", "version", "status", "outcome"),
    [
        ((), "forged", 0, "UNAUTHENTICATED", "denied"),
        (("stranger",), "forged", 0, "PERMISSION_DENIED", "denied"),
        (("reader",), "other", 0, "PERMISSION_DENIED", "denied"),
        (("admin",), "other", 0, "NOT_FOUND", "invalid"),
        (("admin",), "forged", 2, "NOT_FOUND", "invalid"),
        (("admin",), "Mrs. Nobody *1970", 0, "NOT_FOUND", "invalid"),
    ],
)
def test_whoever_may_not_or_asks_for_what_is_not_here_is_told_and_on_record(
    appliance: Running, caller: tuple[str, ...], model: str, version: int, status: str, outcome: str
) -> None:
    before = len(records(appliance.site))
    with appliance.client(*caller) as client:
        found, sentence = refused(lambda: client.classify(model, [forge.png(forge.image(1))], version=version))
    assert found == status
    assert "Nobody" not in sentence
    record = records(appliance.site)[before]
    assert record["outcome"] == outcome
    assert "Nobody" not in str(record)


def test_without_a_certificate_there_is_no_connection(appliance: Running) -> None:
    ca = (appliance.site.client("reader") / "ca.crt").read_bytes()
    with grpc.secure_channel(appliance.address, grpc.ssl_channel_credentials(ca)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert refused(lambda: call(b"", timeout=5))[0] == "UNAVAILABLE"


def test_another_hospitals_certificate_is_worth_nothing(
    appliance: Running, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Forge().site(tmp_path_factory.mktemp("other")).client("reader")
    ours = (appliance.site.client("reader") / "ca.crt").read_bytes()
    key, certificate = (other / "client.key").read_bytes(), (other / "client.crt").read_bytes()
    with grpc.secure_channel(appliance.address, grpc.ssl_channel_credentials(ours, key, certificate)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert refused(lambda: call(b"", timeout=5))[0] == "UNAVAILABLE"


def test_administration_is_for_those_with_the_role(appliance: Running) -> None:
    with appliance.client("admin") as client:
        model = client.list_models().models[0]
        assert (model.name, model.version, model.provider) == ("forged", 1, "CPUExecutionProvider")
    with appliance.client("reader") as client:
        assert refused(client.list_models)[0] == "PERMISSION_DENIED"


def test_the_protocols_questions_have_answers(appliance: Running) -> None:
    stub = appliance.inference("reader")
    assert stub.ServerLive(oip.ServerLiveRequest()).live
    assert stub.ServerReady(oip.ServerReadyRequest()).ready
    assert stub.ModelReady(oip.ModelReadyRequest(name="forged", version="1")).ready
    assert stub.ServerMetadata(oip.ServerMetadataRequest()).name == "appliance"
    metadata = stub.ModelMetadata(oip.ModelMetadataRequest(name="forged"))
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("image", "UINT8", [-1, 8, 8, 1])
    ]


def test_a_deadline_that_cannot_be_met_and_a_cancelled_call_disturb_nobody(appliance: Running) -> None:
    """Callers who give up at every moment, among callers who do not: those get their own rows."""
    stub = appliance.inference("reader")
    picture = forge.image(7)[None]

    def give_up(i: int) -> None:
        call = stub.ModelInfer.future(infer(picture), timeout=0.0005 * (i % 8 + 1))
        if i % 2:
            call.cancel()

    def stay(i: int) -> bool:
        own = forge.image(1000 + i)[None]
        answer = stub.ModelInfer(infer(own), timeout=30)
        return bool(np.allclose(np.frombuffer(answer.raw_output_contents[1], "<f4"), forge.logits(own)[0], atol=1e-4))

    with ThreadPoolExecutor(8) as pool:
        lost = [pool.submit(give_up, i) for i in range(100)]
        answered = list(pool.map(stay, range(200)))
    assert all(answered)
    assert all(future.exception() is None for future in lost)


def test_a_full_queue_refuses_politely(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = Forge()
    site = made.site(tmp_path_factory.mktemp("full"), [made.bundle()], "[limits]\nqueue_rows_max = 2\n")
    with running(site) as appliance:
        stub = appliance.inference("reader")
        status, _ = refused(lambda: stub.ModelInfer(infer(np.zeros((3, 8, 8, 1), np.uint8))))
        assert status == "RESOURCE_EXHAUSTED"
        assert stub.ModelInfer(infer(np.zeros((2, 8, 8, 1), np.uint8))).model_name == "forged"
        assert [record["outcome"] for record in records(site)[-2:]] == ["shed", "answered"]


def test_health_and_metrics_tell_what_is(appliance: Running) -> None:
    def page(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{appliance.metrics_port}{path}", timeout=10) as found:
            return str(found.read().decode())

    with appliance.client("stranger") as client:  # health is for load balancers: any certificate of the CA will do
        assert client.serves()
        assert client.serves("forged")
        status, _ = refused(lambda: client.classify("forged", [b""]))
        assert status == "PERMISSION_DENIED"
    assert page("/livez") == page("/readyz") == "200 OK\n"
    metrics = page("/metrics")
    assert 'appliance_calls_total{error="permission_denied",method="Classify",outcome="denied"}' in metrics
    assert "stranger" not in metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page("/else")


def test_every_call_is_counted_once_under_the_outcome_on_record(appliance: Running) -> None:
    url = f"http://127.0.0.1:{appliance.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as found:
        lines = found.read().decode().splitlines()
    counted = sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("appliance_calls_total{"))
    assert counted == sum(record["event"] == "call" for record in records(appliance.site))

"""Texts over real connections: a model that takes them answers each with its own row, and nothing of a text stays behind."""

import hashlib
import hmac
import json
import struct
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from appliance.audit.pseudonym import Epoch
from appliance.client import CallFailed, ClassifyRequest, Client
from appliance.keys import SealedFiles, pseudonym_key
from appliance.oip import open_inference_pb2 as oip
from tests import forge
from tests.cli.running import Ran, run
from tests.forge import Forge
from tests.isolation.besieged import heard
from tests.running import Running, records, running

SCRIBE = '[[access]]\ncaller = "DNS:scribe"\nroles = ["predict"]\nmodels = ["reports", "forged"]\n'
MARK = "zzMaryNobodyzz"
TEXTS = ["No effusion .", "Heart normal .", "HEART 1 2 3 heart", "effusion unheard-of", "ﬁne"]
LABELS = ("one", "two", "three")
BAD = {
    "too many words": (b"no " * (forge.TOKENS + 1), "it has 9 words and marks; this model takes 1 to 8."),
    "too many bytes": (b"1" * 201, "it has more than 200 bytes."),
    "nothing": (b"", "it has 0 words and marks; this model takes 1 to 8."),
    "spaces alone": (b" \n\t ", "it has 0 words and marks; this model takes 1 to 8."),
    "a tower of marks": (("e" + "\u0301\u0327" * 16).encode(), "it has more than 30 combining marks in a row."),
    "not UTF-8": (b"effusion \xff", "it is not UTF-8."),
    "UTF-16": ("effusion".encode("utf-16"), "it is not UTF-8."),
    "half a surrogate": (b"\xed\xa0\x80", "it is not UTF-8."),
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, list[str]]]:
    """An appliance with a model of texts and one of images, and the lines that it prints."""
    vendor = Forge()
    site = vendor.site(tmp_path_factory.mktemp("texts"), [vendor.bundle(), vendor.texts()], SCRIBE)
    with running(site) as found, heard(found) as lines:
        yield found, lines


@pytest.fixture(scope="module")
def appliance(log: tuple[Running, list[str]]) -> Running:
    return log[0]


@pytest.fixture(scope="module")
def client(appliance: Running) -> Iterator[Client]:
    with appliance.client("scribe") as made:
        yield made


def typed(texts: Sequence[bytes], shape: Sequence[int] = ()) -> oip.ModelInferRequest:
    """As a client that fills in ``contents`` asks."""
    request = oip.ModelInferRequest(model_name="reports")
    tensor = request.inputs.add(name="report", datatype="BYTES", shape=shape or [len(texts)])
    tensor.contents.bytes_contents.extend(texts)
    return request


def raw(texts: Sequence[bytes], shape: Sequence[int] = ()) -> oip.ModelInferRequest:
    """As Triton's client asks: each text after its length."""
    joined = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    request = oip.ModelInferRequest(model_name="reports", raw_input_contents=[joined])
    request.inputs.add(name="report", datatype="BYTES", shape=shape or [len(texts)])
    return request


def logits(answer: oip.ModelInferResponse) -> np.ndarray:
    place = [output.name for output in answer.outputs].index("logits")
    return np.frombuffer(answer.raw_output_contents[place], "<f4").reshape(-1, forge.CLASSES)


def encoded(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the sentence of a call that must fail."""
    with pytest.raises((CallFailed, grpc.RpcError)) as caught:
        call()
    error = caught.value
    return (error.status, str(error)) if isinstance(error, CallFailed) else (error.code().name, error.details())


# --- answered --------------------------------------------------------------------------------------------------------


def test_each_text_has_its_own_answer_in_order(client: Client) -> None:
    texts = [text for text in TEXTS if text.isascii() and "-" not in text]
    answer = client.classify("reports", texts=texts, client_reference="case-17")
    wanted = forge.text_logits(texts).argmax(axis=1)
    assert [result.label.name for result in answer.results] == [LABELS[top] for top in wanted]


def test_a_stream_takes_texts_and_a_bad_one_ends_nothing(client: Client) -> None:
    texts = [[forge.report(number)] for number in range(40)]
    texts[7] = ["no " * 9]
    found = {said.number: said for said in client.classify_stream(ClassifyRequest(model="reports", texts=t) for t in texts)}
    assert (found[7].error.code, found[7].error.message) == (
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        "Text 0: it has 9 words and marks; this model takes 1 to 8.",
    )
    for number in set(range(40)) - {7}:
        [result] = found[number].answer.results
        assert result.label.name == LABELS[int(forge.text_logits(texts[number]).argmax())]


@pytest.mark.parametrize("ask", [typed, raw])
@pytest.mark.parametrize("column", [False, True], ids=["rows", "a column"])
def test_every_form_of_the_open_protocol_has_the_models_exact_logits(
    appliance: Running, ask: Callable[..., oip.ModelInferRequest], column: bool
) -> None:
    texts = [forge.report(number) for number in (5, 17, 99_999)]
    answer = appliance.inference("scribe").ModelInfer(ask(encoded(texts), [3, 1] if column else [3]))
    assert np.array_equal(logits(answer), forge.text_logits(texts))


def test_a_text_has_one_answer_whatever_stands_beside_it(appliance: Running) -> None:
    stub, text = appliance.inference("scribe"), forge.report(3)
    alone = logits(stub.ModelInfer(raw([text.encode()])))
    for other in ("no", "1 2 3 4 5 6 7 8", "unheard"):
        assert np.array_equal(logits(stub.ModelInfer(raw(encoded([other, text]))))[1:], alone)


def test_marks_that_a_language_has_are_no_tower(client: Client) -> None:
    texts = ["he\u0301\u0327art", "\u05e9\u05c1\u05b8", "e" + "\u0301" * 7]
    assert len(client.classify("reports", texts=texts).results) == 3


def test_metadata_and_configuration_tell_of_texts_not_of_their_numbers(appliance: Running) -> None:
    stub = appliance.inference("scribe")
    [told] = stub.ModelMetadata(oip.ModelMetadataRequest(name="reports")).inputs
    assert (told.name, told.datatype, list(told.shape)) == ("report", "BYTES", [-1])
    [told] = stub.ModelConfig(oip.ModelConfigRequest(name="reports")).config.input
    assert (told.name, told.data_type, list(told.dims)) == ("report", oip.TYPE_STRING, [1])


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [typed, raw])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_text_is_refused_by_its_position_and_on_record(
    appliance: Running, ask: Callable[..., oip.ModelInferRequest], what: str
) -> None:
    bad, sentence = BAD[what]
    before = len(records(appliance.site))
    found = refused(lambda: appliance.inference("scribe").ModelInfer(ask([b"no effusion", bad])))
    assert found == ("INVALID_ARGUMENT", f"Text 1: {sentence}")
    [record] = records(appliance.site)[before:]
    assert (record["outcome"], record["input"]["rows"]) == ("invalid", 2)


def test_a_text_that_is_not_utf_8_is_no_message_of_classify(appliance: Running) -> None:
    before = len(records(appliance.site))
    message = ClassifyRequest(model="reports", texts=["xx"]).SerializeToString().replace(b"xx", b"x\xff")
    with appliance.channel("scribe") as channel:
        found = refused(lambda: channel.unary_unary("/appliance.v1.Classification/Classify")(message, timeout=10))
    assert found == ("INVALID_ARGUMENT", "The message is not what this call takes.")
    assert [record["outcome"] for record in records(appliance.site)[before:]] == ["invalid"]


PNG = forge.png(forge.image(1))
BOTH = ClassifyRequest(model="reports", images=[PNG], texts=["no"])
IMAGES, WORDS = ClassifyRequest(model="reports", images=[b"no"]), ClassifyRequest(model="forged", texts=["no"])
WRONG = {
    "images and texts": (BOTH, "A request has images or texts, not both."),
    "images to a model of texts": (IMAGES, "This model takes texts, and was sent images."),
    "texts to a model of images": (WORDS, "This model takes images, and was sent texts."),
    "neither": (ClassifyRequest(model="reports"), "A request has 1 to 1024 rows."),
    "too many": (ClassifyRequest(model="reports", texts=["no"] * 1025), "A request has 1 to 1024 rows."),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_model_does_not_take_is_refused_in_one_sentence_and_on_record(appliance: Running, what: str) -> None:
    request, sentence = WRONG[what]
    before = len(records(appliance.site))
    with appliance.channel("scribe") as channel:
        ask = channel.unary_unary("/appliance.v1.Classification/Classify")
        assert refused(lambda: ask(request.SerializeToString(), timeout=10)) == ("INVALID_ARGUMENT", sentence)
    [record] = records(appliance.site)[before:]
    assert (record["outcome"], record["error"], record["caller"]["name"]) == ("invalid", "invalid_input", "DNS:scribe")
    assert "input" not in record


def test_numbers_of_words_are_not_taken(appliance: Running) -> None:
    """Whoever could send them could send one that is out of range, and end a batch with others in it."""
    rows = np.array([[1, 2, 0, 0, 0, 0, 0, 0, 0]], np.int64)
    request = oip.ModelInferRequest(model_name="reports", raw_input_contents=[rows.tobytes()])
    request.inputs.add(name="report", datatype="INT64", shape=rows.shape)
    found = refused(lambda: appliance.inference("scribe").ModelInfer(request))
    assert found == ("INVALID_ARGUMENT", "The input report has the datatype BYTES, holding texts.")


def test_bad_texts_cost_their_good_neighbours_nothing(appliance: Running) -> None:
    """Hundreds of callers at once, a third of them with something bad; each of the others has exactly its own rows."""
    bad, stub = [content for content, _ in BAD.values()], appliance.inference("scribe")

    def ask(number: int) -> bool:
        form = typed if number % 2 else raw
        if number % 3 == 0:
            spoiled = form([forge.report(number).encode(), bad[number % len(bad)]])
            return refused(lambda: stub.ModelInfer(spoiled, timeout=30))[0] == "INVALID_ARGUMENT"
        own = [forge.report(number * 100 + row) for row in range(1 + number % 4)]
        return np.array_equal(logits(stub.ModelInfer(form(encoded(own)), timeout=30)), forge.text_logits(own))

    with ThreadPoolExecutor(24) as callers:
        assert all(callers.map(ask, range(600)))


def test_no_two_of_these_callers_share_a_row() -> None:
    """The ground that the test above stands on."""
    numbers = [number * 100 + row for number in range(600) for row in range(1 + number % 4)]
    assert len(np.unique(forge.text_logits([forge.report(n) for n in numbers]), axis=0)) > 0.99 * len(numbers)


# --- what stays ------------------------------------------------------------------------------------------------------


def names_of(appliance: Running, record: dict[str, Any], *texts: bytes) -> list[str]:
    epoch = Epoch.decode(1, SealedFiles(appliance.site.root / "keys", forge.PASSPHRASE).get(pseudonym_key(1)))
    keys = epoch.row_keys(record["request_id"], len(texts))
    return [hmac.new(key, text, hashlib.sha256).hexdigest()[:32] for key, text in zip(keys, texts, strict=True) if key]


def test_the_record_names_a_text_by_its_bytes_as_received(appliance: Running, client: Client) -> None:
    """Case, forms of Unicode and spaces included, though none of them changes the answer."""
    texts = ["No  EFFUSION\r\n", "ﬁne", "e\u0301"]
    wanted = {"form": "encoded", "rows": 3, "bytes": sum(map(len, encoded(texts))), "epoch": 1}
    indices = [client.classify("reports", texts=texts).log_index]
    for form in (typed, raw):
        answer = appliance.inference("scribe").ModelInfer(form(encoded(texts)))
        indices.append(answer.parameters["log_index"].int64_param)
    for index in indices:
        record = records(appliance.site)[index]
        assert record["input"] == wanted | {"pseudonyms": names_of(appliance, record, *encoded(texts))}


def test_nothing_of_a_text_is_in_the_log_the_metrics_or_a_message(log: tuple[Running, list[str]]) -> None:
    appliance, lines = log
    mark, long = MARK.encode(), f"{MARK} " * 9
    stub, said = appliance.inference("scribe"), list[str]()
    with appliance.client("scribe") as client:
        answer = client.classify("reports", texts=[MARK, f"no {MARK}"])
        said.append(str(answer))
        requests = [ClassifyRequest(model="reports", texts=[text]) for text in (MARK, long)]
        said += map(str, client.classify_stream(requests))
        said += refused(lambda: client.classify("reports", texts=[long]))
        said += refused(lambda: client.classify("forged", texts=[MARK]))
        said += refused(lambda: client.classify("reports", [mark], texts=[MARK]))
    for form in (typed, raw):
        said.append(str(stub.ModelInfer(form([mark]))))
        for bad in (mark + b"\xff", long.encode(), mark * 20):
            said += refused(lambda form=form, bad=bad: stub.ModelInfer(form([bad])))  # type: ignore[misc]
    said += refused(lambda: stub.ModelInfer(typed([mark], [2])))
    written = b"".join(path.read_bytes() for path in (appliance.site.root / "audit").glob("*.log")).decode(errors="replace")
    with urllib.request.urlopen(f"http://127.0.0.1:{appliance.metrics_port}/metrics", timeout=10) as page:
        metrics = page.read().decode()
    for where in (written, metrics, "".join(lines), "".join(said)):
        assert MARK.lower() not in where.lower()
    assert len(written) > 1000 < len(metrics)


# --- the command line ------------------------------------------------------------------------------------------------


def predict(appliance: Running, *arguments: object, model: str = "reports") -> Ran:
    folder = appliance.site.client("scribe")
    given = ("--address", appliance.address, "--ca", folder / "ca.crt", "--certificate", folder / "client.crt")
    return run("predict", *given, "--key", folder / "client.key", "--model", model, *arguments)


def test_command_asks_about_texts_of_files_and_of_the_line(appliance: Running, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffNo effusion .\r\n".encode())  # as Windows writes it
    (tmp_path / "b.TXT").write_text("Heart normal .")
    ran = predict(appliance, tmp_path / "a.txt", tmp_path / "b.TXT", "--text", "Heart 1 2 .", "--json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    wanted = forge.text_logits(["no effusion .", "heart normal .", "heart 1 2 ."]).argmax(axis=1)
    assert [result["label"] for result in said["results"]] == [LABELS[top] for top in wanted]
    assert [result["file"] for result in said["results"]] == [str(tmp_path / "a.txt"), str(tmp_path / "b.TXT"), None]
    record = records(appliance.site)[said["log_index"]]
    texts = (b"No effusion .\r\n", b"Heart normal .", b"Heart 1 2 .")
    assert record["input"]["pseudonyms"] == names_of(appliance, record, *texts)


def test_a_file_of_a_text_is_proved_to_be_the_one_that_was_scored(appliance: Running, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffNo effusion .\r\n".encode())
    (tmp_path / "b.txt").write_text("Heart normal .")
    index = json.loads(predict(appliance, tmp_path / "a.txt", "--json").out)["log_index"]
    prove = ("audit", "prove", index, appliance.site.root, "--text")
    ran = run(*prove, tmp_path / "a.txt")
    assert (ran.code, f"The file is row 0 of record {index}" in ran.err) == (0, True)
    assert run(*prove, tmp_path / "b.txt").code == 4


def test_command_shows_the_answer_and_not_the_text(appliance: Running) -> None:
    ran = predict(appliance, "--text", MARK, "--text", "no")
    assert (ran.code, ran.err) == (0, "")
    assert "--text 2" in ran.out
    assert MARK not in ran.out


def test_command_refuses_what_is_no_text_before_anything_is_sent(appliance: Running, tmp_path: Path) -> None:
    before = len(records(appliance.site))
    (tmp_path / "utf16.txt").write_bytes("effusion".encode("utf-16"))
    (tmp_path / "image.png").write_bytes(PNG)
    for arguments, sentence in (
        ((tmp_path / "utf16.txt",), "utf16.txt is not UTF-8"),
        (("--text", "\udcff"), "--text 1 is not UTF-8"),
        ((tmp_path / "image.png", "--text", "no"), "and not both"),
        ((), "Give image files, or texts"),
    ):
        ran = predict(appliance, *arguments)
        assert (ran.code, ran.out, sentence in ran.err) == (2, "", True), ran.err
    assert len(records(appliance.site)) == before

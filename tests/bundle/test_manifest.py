"""The manifest: what it says reads back, and each field has its limit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import canonical
from appliance.bundle import manifest
from appliance.bundle.manifest import (
    SCORES,
    UNKNOWN_METHODS,
    Accept,
    Code,
    DecisionRule,
    Expected,
    Golden,
    InputSpec,
    Label,
    LabelSetRule,
    Manifest,
    OutputSpec,
    Part,
    TextSpec,
    Unknown,
)
from appliance.errors import MalformedBundle
from tests import forge

PARTS = tuple(Part(role, role, 100, "ab" * 32, 28, "cd" * 32) for role in ("graph", "weights", "selftest", "card"))
REFERENCE = Part("reference", "reference", 100, "ab" * 32, 28, "cd" * 32)
RULE = replace(
    forge.RULE, unknown=Unknown("mahalanobis", 7_000_000), label_set=LabelSetRule("raps", 900_000, (1,), 10_000, 2)
)
TEXT = InputSpec("text", "INT64", (9,), text=TextSpec("folded", 100, ("fever", "no")))


def plain() -> Manifest:
    return forge.manifest(parts=PARTS)


def full() -> Manifest:
    """A manifest in which nothing is null."""
    labels = (Label("one", Code("http://snomed.info/sct", "1")), Label("two", None), Label("größer", None))
    return replace(
        plain(),
        parts=(*PARTS, REFERENCE),
        decision=RULE,
        outputs=OutputSpec("logits", "embedding"),
        labels=labels,
        inputs=(forge.SPEC, TEXT),
    )


def set_at(path: str, value: Any) -> Callable[[Any], None]:
    """Sets one value, such as ``predicate.model.id`` or ``subject.0.name``."""

    def edit(statement: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            statement = statement[int(step) if step.isdigit() else step]
        statement[int(last) if last.isdigit() else last] = value

    return edit


def edited(made: Manifest, *edits: Callable[[Any], None]) -> bytes:
    statement = canonical.decode(manifest.encode(made))
    for edit in edits:
        edit(statement)
    return canonical.encode(statement)


@pytest.mark.parametrize("made", [plain(), full()])
def test_what_is_written_reads_back(made: Manifest) -> None:
    assert manifest.decode(manifest.encode(made)) == made


NAMES = st.text(st.sampled_from("abcXYZ019_.:/-"), min_size=1, max_size=128)


@given(
    st.builds(
        replace,
        st.just(full()),
        intended_use=st.text(min_size=1, max_size=2000),
        outputs=st.builds(OutputSpec, NAMES, NAMES).filter(lambda outputs: outputs.logits != outputs.embedding),
        decision=st.builds(
            DecisionRule,
            st.integers(1_000, 1_000_000_000),
            st.builds(Accept, st.sampled_from(SCORES), st.integers(-(10**12), 10**12)),
            st.builds(Unknown, st.sampled_from(UNKNOWN_METHODS), st.integers(-(10**15), 10**15)),
            st.none() | st.builds(LabelSetRule, st.just("raps"), st.integers(500_000, 999_999), st.just((5,))),
            st.builds(Expected, st.integers(10, 2**31 - 1), st.integers(0, 5), st.integers(0, 5)),
        ),
        golden=st.builds(Golden, st.integers(1, 256), st.integers(1, 1_000_000)),
        labels=st.lists(st.text(min_size=1, max_size=200), min_size=2, max_size=5, unique=True).map(
            lambda names: tuple(Label(name, Code("s", "v")) for name in names)
        ),
    )
)
def test_every_manifest_within_the_limits_reads_back(made: Manifest) -> None:
    assert manifest.decode(manifest.encode(made)) == made


def test_digest_is_of_the_signed_bytes() -> None:
    """SHA-256 of the empty string, a known answer; and another manifest has another one."""
    assert manifest.digest(b"").startswith("e3b0c44298fc1c14")
    assert manifest.digest(manifest.encode(plain())) != manifest.digest(manifest.encode(full()))


def test_a_part_is_found_by_its_role() -> None:
    assert plain().part("weights") == (1, PARTS[1])
    assert plain().part("reference") is None


TEXT_SAID = {"case": "kept", "bytes_max": 1, "words": ["a"]}
LIMITS = {
    "predicate.bundle_id": ("ab" * 16, ["", "ab" * 15, "AB" * 16, "ab" * 17, 5, None]),
    "predicate.model.id": ("a-9", ["", "A", "a_b", "../x", "a" * 65, "a\n", None]),
    "predicate.model.version": (1, [0, -1, 2**31, "1", True, 1 << 52]),
    "predicate.model.min_supported_version": (1, [0, 2]),
    "predicate.created": ("2026-01-02T03:04:05Z", ["", "2026-01-02", "2026-01-02T03:04:05+00:00", "٢٠٢٦-01-02T03:04:05Z"]),
    "predicate.change_class": ("major", ["", "huge", None]),
    "predicate.intended_use": ("x" * 2000, ["", "x" * 2001, None]),
    "predicate.inputs.0.name": ("image", ["", "a b", "x" * 129]),
    "predicate.inputs.0.shape": ([4096, 4096, 3], [[0, 8, 1], [4097, 8, 1], [8, 8, 2], [8, 8], [True, 8, 1], [8, "8", 1]]),
    "predicate.inputs.0.datatype": ("UINT8", ["FP32", "uint8", "BYTES"]),
    "predicate.inputs.0.image.resize": ("crop", ["pad", ""]),
    "predicate.inputs.0.image.decode": ("draft", ["fast", ""]),
    "predicate.inputs.0.image.pixels_max": (89_478_485, [0, 89_478_486]),
    "predicate.inputs.0.image.bytes_max": (1 << 30, [0, (1 << 30) + 1]),
    "predicate.outputs.logits": ("x" * 128, ["", "x" * 129, None]),
    "predicate.labels.0.name": ("x" * 200, ["", "x" * 201, None, "two"]),
    "predicate.labels.0.code": (None, ["x", {}, {"system": "s"}, {"system": "", "value": "v"}]),
    "predicate.decision.temperature_e6": (1_000, [0, 999, 1_000_000_001]),
    "predicate.decision.accept.score": ("gen", ["", "confidence", None]),
    "predicate.decision.accept.at_least_e6": (-(10**12), [10**12 + 1, -(10**12) - 1, "1"]),
    "predicate.decision.label_set": (None, [{"method": "lac"}, 5, {}]),
    "predicate.decision.expected.cases": (2**31 - 1, [0, 2**31, 4]),
    "predicate.decision.expected.abstained": (100, [-1, 101]),
    "predicate.decision.expected.unknown": (95, [-1, 96]),
    "predicate.inputs.0.text": (None, [TEXT_SAID, {}, 5]),
    "predicate.runtime.precision": ("int8", ["", "bf16", None]),
    "predicate.decision.unknown": (None, [{"method": "energy", "reject_above_e6": 1}, {"method": "vim"}, 5]),
    "predicate.runtime.opset": (99, [17, 100]),
    "predicate.runtime.onnxruntime_min": ("1.20.0", ["1.20", "1.20.0-rc1", "v1.20.0", "1.20.00000", "١.٢.٣"]),
    "predicate.runtime.providers": (["CPUExecutionProvider"], [[], ["a"] * 9, [5], "CPUExecutionProvider"]),
    "predicate.runtime.rows_max": (1024, [0, 1025]),
    "predicate.golden.cases": (256, [0, 257]),
    "predicate.golden.logit_tolerance_e6": (1_000_000, [0, 1_000_001]),
    "predicate.provenance.checkpoint_sha256": ("cd" * 32, ["", "cd" * 31, "CD" * 32]),
    "predicate.provenance.tools": ({"torch": "2"}, [{"torch": 2}, [], None]),
    "predicate.provenance.parity": ({"images": 5}, [{"images": "5"}, {"images": True}, None]),
    "subject.0.name": ("x" * 32, ["", "G", "a-b", "x" * 33, "weights", None]),
    "subject.0.digest.sha256": ("ef" * 32, ["", "ef" * 33, None]),
    "subject.0.annotations.role": ("graph", ["weights", "extra", "", None]),
    "subject.0.annotations.size": (16 << 30, [0, -1, (16 << 30) + 1, "5"]),
    "subject.0.annotations.plain_size": (0, [-1, (16 << 30) + 1]),
    "subject.0.annotations.plain_sha256": ("ef" * 32, ["", "EF" * 32]),
    "_type": ("https://in-toto.io/Statement/v1", ["https://in-toto.io/Statement/v0.1", None]),
    "predicateType": ("urn:x-appliance:manifest:v1", ["urn:x-appliance:manifest:v2", ""]),
}


@pytest.mark.parametrize("path", LIMITS)
def test_every_field_has_its_limit(path: str) -> None:
    """The value at the limit is read, and each of those beyond is refused."""
    good, bad = LIMITS[path]
    manifest.decode(edited(plain(), set_at(path, good)))
    for value in bad:
        with pytest.raises(MalformedBundle):
            manifest.decode(edited(plain(), set_at(path, value)))


OF_FULL = {
    "predicate.decision.label_set.method": ("raps", ["", "aps", "lac", "lac_by_class"]),
    "predicate.decision.label_set.coverage_e6": (999_999, [499_999, 1_000_000]),
    "predicate.decision.label_set.thresholds_e6": ([10**12], [[], [1, 2], [-1], [10**12 + 1], [True], ["1"], 1]),
    "predicate.decision.label_set.penalty_e6": (1_000_000, [-1, 1_000_001]),
    "predicate.decision.label_set.free_ranks": (100_000, [-1, 100_001]),
    "predicate.inputs.1.text.case": ("kept", ["", "lower", None]),
    "predicate.inputs.1.text.bytes_max": (1 << 20, [0, (1 << 20) + 1]),
    "predicate.inputs.1.text.words": (["x" * 200], [[], [""], ["x" * 201], ["a", "a"], [5], "a"]),
    "predicate.inputs.1.shape": ([65_537], [[1], [65_538], [], [9, 9]]),
    "predicate.inputs.1.datatype": ("INT64", ["INT32", "FP32"]),
}


@pytest.mark.parametrize("path", OF_FULL)
def test_every_field_that_may_be_null_has_its_limit(path: str) -> None:
    good, bad = OF_FULL[path]
    manifest.decode(edited(full(), set_at(path, good)))
    for value in bad:
        with pytest.raises(MalformedBundle):
            manifest.decode(edited(full(), set_at(path, value)))


def test_words_have_the_numbers_from_two_on() -> None:
    assert TEXT.text is not None
    assert TEXT.text.numbers == {"fever": 2, "no": 3}


def tables(value: Any, path: str = "") -> list[str]:
    """The path of every table of a document whose keys the format names."""
    found = [path] if isinstance(value, dict) and not path.startswith("predicate.provenance.") else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += tables(item, f"{path}.{key}" if path else str(key))
    return found


STATEMENT = canonical.decode(manifest.encode(full()))


@pytest.mark.parametrize("path", tables(STATEMENT))
def test_unknown_key_is_refused_in_every_table(path: str) -> None:
    with pytest.raises(MalformedBundle, match="not a known setting"):
        manifest.decode(edited(full(), set_at(f"{path}.stray" if path else "stray", 1)))


@pytest.mark.parametrize("path", [
    "_type", "subject", "predicate", "predicate.model", "predicate.labels", "predicate.decision", "predicate.golden.cases",
    "predicate.inputs.0.name", "subject.0.digest", "subject.1.annotations.role", "predicate.provenance.tools",
])  # fmt: skip
def test_missing_key_is_refused(path: str) -> None:
    def remove(statement: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            statement = statement[int(step) if step.isdigit() else step]
        del statement[last]

    with pytest.raises(MalformedBundle, match="is missing"):
        manifest.decode(edited(full(), remove))


@pytest.mark.parametrize("made", [
    replace(plain(), parts=PARTS[:3]),
    replace(full(), decision=replace(RULE, label_set=LabelSetRule("lac_by_class", 900_000, (1, 2)))),
    replace(plain(), parts=(*PARTS, REFERENCE)),
    replace(full(), parts=PARTS),
    replace(plain(), parts=(*PARTS[:2], replace(PARTS[1], name="more"), PARTS[3])),
    replace(plain(), parts=(*PARTS, replace(PARTS[0], name="graph2"))),
    replace(plain(), parts=()),
    replace(plain(), parts=tuple(replace(part, name="same") for part in PARTS)),
    replace(full(), outputs=OutputSpec("logits", None)),
    replace(plain(), labels=(Label("one", None),)),
    replace(plain(), labels=(Label("one", None), Label("one", None))),
])  # fmt: skip
def test_fields_that_contradict_each_other_are_refused(made: Manifest) -> None:
    with pytest.raises(MalformedBundle):
        manifest.decode(manifest.encode(made))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"1.5", b"\xff", b'{"a":1,"a":1}'])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        manifest.decode(data)


def test_statement_with_a_space_is_refused() -> None:
    with pytest.raises(MalformedBundle, match="canonical"):
        manifest.decode(manifest.encode(plain()) + b" ")

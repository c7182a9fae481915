"""The manifest: what the vendor signs about a model (bundle-format section 4).

The signed bytes are an in-toto Statement; its subjects are the bundle's parts and its predicate is the manifest. A field
here has the name that it has there, so writing is ``asdict`` and reading is the only place with rules. Whoever holds a
``Manifest`` holds one that obeys them.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod

from appliance import canonical
from appliance.canonical import parse_time
from appliance.errors import MalformedBundle
from appliance.fields import Fields

E6 = 1_000_000  # a field whose name ends so is in millionths
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:x-appliance:manifest:v1"

MODEL_ID = r"[a-z0-9-]{1,64}"
ROLES = ("graph", "weights", "selftest", "card", "reference")
PRECISIONS = ("fp32", "fp16", "int8")
SCORES = ("max_probability", "margin", "entropy", "top_two", "max_logit", "energy", "gen")
UNKNOWN_METHODS = ("mahalanobis", "relative_mahalanobis", "vim", "nearest")
LABEL_SETS = ("lac", "lac_by_class", "raps")
RESIZES = ("stretch", "crop")
DECODES = ("full", "draft")
CASES = ("kept", "folded")
# Bytes of one element, by the Open Inference Protocol's name of its type.
DATATYPES = {
    **{"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8},
    **{"FP16": 2, "FP32": 4, "FP64": 8},
}
INPUTS_MAX = 16
DIMENSIONS_MAX = 7  # besides that of the rows
ROW_BYTES_MAX = 1 << 30
CHANGE_CLASSES = ("initial", "minor", "major")
VERSION_MAX = 2**31 - 1
PART_BYTES_MAX = 16 << 30
CLASSES_MAX = 100_000
ROWS_MAX = 1024
SIDE_MAX = 4096  # pixels
TOKENS_MAX = 65_536
WORDS_MAX = 100_000
CARD_BYTES_MAX = 1 << 20
SCORE_E6_MAX, DISTANCE_E6_MAX = 10**12, 10**15  # and as far below 0
PIXELS_MAX = 89_478_485  # above this the decoder has a limit of its own

_HEX = r"[0-9a-f]{64}"
_NAME = r"[A-Za-z0-9_.:/-]{1,128}"


@dataclass(frozen=True, slots=True)
class Part:
    """One encrypted part. Sizes are bytes; digests are hex SHA-256, of the ciphertext and of the plaintext."""

    name: str
    role: str
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str


@dataclass(frozen=True, slots=True)
class ModelId:
    id: str
    version: int
    min_supported_version: int


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an encoded image becomes pixels (section 4.1), and the most that one may have."""

    resize: str
    decode: str
    pixels_max: int
    bytes_max: int


@dataclass(frozen=True)
class TextSpec:
    """How a text becomes numbers (section 4.1): ``words`` in the order of their numbers, from 2 on."""

    case: str
    bytes_max: int
    words: tuple[str, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 2)}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of the graph: ``shape`` is that of a row. Pixels are uint8 ``[height, width, channels]``; a text is int64
    ``[1 + tokens]``: how many tokens it has, then their numbers, then zeros.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    image: ImageSpec | None = None
    text: TextSpec | None = None

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * DATATYPES[self.datatype]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    logits: str
    embedding: str | None


@dataclass(frozen=True, slots=True)
class Code:
    """A term of a published code system, such as SNOMED CT."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    code: Code | None


@dataclass(frozen=True, slots=True)
class Accept:
    """How sure an answer must be: the least value of a score, which is higher for surer answers."""

    score: str
    at_least_e6: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """When an input is not of the kind the model was made for."""

    method: str
    reject_above_e6: int


@dataclass(frozen=True, slots=True)
class LabelSetRule:
    """Which labels an answer does not rule out, so that the true one is among them at the rate of ``coverage_e6``.

    ``thresholds_e6`` holds one number, or one for each class; ``penalty_e6`` and ``free_ranks`` are for ``raps`` alone.
    """

    method: str
    coverage_e6: int
    thresholds_e6: tuple[int, ...]
    penalty_e6: int = 0
    free_ranks: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """How often the rule abstained, and took an input for unknown, among ``cases`` of validation."""

    cases: int
    abstained: int
    unknown: int


@dataclass(frozen=True, slots=True)
class DecisionRule:
    temperature_e6: int
    accept: Accept
    unknown: Unknown | None
    label_set: LabelSetRule | None
    expected: Expected


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    opset: int
    onnxruntime_min: str
    precision: str
    providers: tuple[str, ...]
    rows_max: int


@dataclass(frozen=True, slots=True)
class Golden:
    cases: int
    logit_tolerance_e6: int


@dataclass(frozen=True, slots=True)
class Provenance:
    checkpoint_sha256: str
    tools: dict[str, str]
    parity: dict[str, int]


@dataclass(frozen=True, slots=True)
class Manifest:
    bundle_id: str
    model: ModelId
    created: str
    change_class: str
    intended_use: str
    inputs: tuple[InputSpec, ...]
    outputs: OutputSpec
    labels: tuple[Label, ...]
    decision: DecisionRule
    runtime: RuntimeSpec
    golden: Golden
    provenance: Provenance
    parts: tuple[Part, ...]

    @property
    def image(self) -> InputSpec | None:
        """The input that takes images, if the model has one."""
        return next((spec for spec in self.inputs if spec.image is not None), None)

    def part(self, role: str) -> tuple[int, Part] | None:
        """The index and the part of a role, if the bundle has one."""
        return next(((i, part) for i, part in enumerate(self.parts) if part.role == role), None)


def digest(statement: bytes) -> str:
    """The model digest: hex SHA-256 of the signed bytes."""
    return hashlib.sha256(statement).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """The statement to sign."""
    predicate = asdict(manifest)
    subjects = []
    for part in predicate.pop("parts"):
        name, sha256 = part.pop("name"), part.pop("sha256")
        subjects.append({"name": name, "digest": {"sha256": sha256}, "annotations": part})
    return canonical.encode(
        {"_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE, "subject": subjects, "predicate": predicate}
    )


def decode(statement: bytes) -> Manifest:
    """The manifest of a statement whose signature has been checked.

    Raises:
        MalformedBundle: a field is missing, unknown, or outside what section 4 allows.
    """
    try:
        fields = Fields(canonical.decode(statement))
    except ValueError as error:
        raise MalformedBundle("The manifest is not in its canonical form.") from error
    fields.choice("_type", (STATEMENT_TYPE,))
    fields.choice("predicateType", (PREDICATE_TYPE,))
    parts = tuple(_part(row) for row in fields.tables("subject", 2, 16))
    manifest = _manifest(fields.table("predicate"), parts)
    fields.close()
    if not fields.problems:
        _check_together(manifest, fields)
    if fields.problems:
        raise MalformedBundle(f"The manifest is not valid: {fields.problems[0]}.")
    return manifest


def _part(row: Fields) -> Part:
    digests, notes = row.table("digest"), row.table("annotations")
    part = Part(
        name=row.text("name", pattern=r"[a-z0-9_]{1,32}"),
        role=notes.choice("role", ROLES),
        size=notes.integer("size", 1, PART_BYTES_MAX),
        sha256=digests.text("sha256", pattern=_HEX),
        plain_size=notes.integer("plain_size", 0, PART_BYTES_MAX),
        plain_sha256=notes.text("plain_sha256", pattern=_HEX),
    )
    for fields in (digests, notes, row):
        fields.close()
    return part


def _manifest(fields: Fields, parts: tuple[Part, ...]) -> Manifest:
    manifest = Manifest(
        bundle_id=fields.text("bundle_id", pattern=r"[0-9a-f]{32}"),
        model=_model(fields.table("model")),
        created=_time(fields, "created"),
        change_class=fields.choice("change_class", CHANGE_CLASSES),
        intended_use=fields.text("intended_use", pattern=r"(?s).{1,2000}"),
        inputs=tuple(_input(row) for row in fields.tables("inputs", 1, INPUTS_MAX)),
        outputs=_outputs(fields.table("outputs")),
        labels=tuple(_label(row) for row in fields.tables("labels", 2, CLASSES_MAX)),
        decision=_decision(fields.table("decision")),
        runtime=_runtime(fields.table("runtime")),
        golden=_golden(fields.table("golden")),
        provenance=_provenance(fields.table("provenance")),
        parts=parts,
    )
    fields.close()
    return manifest


def _time(fields: Fields, key: str) -> str:
    text = fields.text(key)
    try:
        parse_time(text)
    except ValueError:
        fields.problem(f"{fields.name(key)} is not a time")
    return text


def _model(fields: Fields) -> ModelId:
    version = fields.integer("version", 1, VERSION_MAX)
    model = ModelId(
        id=fields.text("id", pattern=MODEL_ID),
        version=version,
        min_supported_version=fields.integer("min_supported_version", 1, max(1, version)),
    )
    fields.close()
    return model


def _input(fields: Fields) -> InputSpec:
    for key in ("image", "text"):
        fields.require(key)
    image, text = fields.optional_table("image"), fields.optional_table("text")
    spec = InputSpec(
        name=fields.text("name", pattern=_NAME),
        datatype=fields.choice("datatype", tuple(DATATYPES)),
        shape=tuple(fields.items("shape", int, 0, DIMENSIONS_MAX)),
        image=None if image is None else _image(image),
        text=None if text is None else _text(text),
    )
    if not all(type(size) is int and size >= 1 for size in spec.shape) or spec.row_bytes > ROW_BYTES_MAX:
        fields.problem(f"{fields.name('shape')} has a size below 1, or is over {ROW_BYTES_MAX} bytes")
    elif image is not None and (
        spec.datatype != "UINT8" or len(spec.shape) != 3 or max(spec.shape) > SIDE_MAX or spec.shape[2] not in (1, 3)
    ):
        fields.problem(f"{fields.where} takes images, and is not UINT8 [height, width, 1 or 3]")
    elif text is not None and (
        image is not None or spec.datatype != "INT64" or len(spec.shape) != 1 or not 2 <= spec.shape[0] <= TOKENS_MAX + 1
    ):
        fields.problem(f"{fields.where} takes texts, and is not INT64 [1 + 1 to {TOKENS_MAX}]")
    fields.close()
    return spec


def _image(fields: Fields) -> ImageSpec:
    spec = ImageSpec(
        resize=fields.choice("resize", RESIZES),
        decode=fields.choice("decode", DECODES),
        pixels_max=fields.integer("pixels_max", 1, PIXELS_MAX),
        bytes_max=fields.integer("bytes_max", 1, 1 << 30),
    )
    fields.close()
    return spec


def _text(fields: Fields) -> TextSpec:
    spec = TextSpec(
        case=fields.choice("case", CASES),
        bytes_max=fields.integer("bytes_max", 1, 1 << 20),
        words=tuple(fields.items("words", str, 1, WORDS_MAX)),
    )
    if len(set(spec.words)) != len(spec.words) or not all(1 <= len(word) <= 200 for word in spec.words):
        fields.problem(f"{fields.name('words')} has a word twice, or one that has not 1 to 200 characters")
    fields.close()
    return spec


def _outputs(fields: Fields) -> OutputSpec:
    logits = fields.text("logits", pattern=_NAME)
    fields.require("embedding")
    embedding = fields.text("embedding", pattern=_NAME) if fields.present("embedding") else None
    fields.close()
    return OutputSpec(logits, embedding)


def _label(fields: Fields) -> Label:
    fields.require("code")
    name, code = fields.text("name"), fields.optional_table("code")
    label = Label(name, None if code is None else Code(code.text("system"), code.text("value")))
    for read in (code, fields):
        if read is not None:
            read.close()
    return label


def _decision(fields: Fields) -> DecisionRule:
    for key in ("unknown", "label_set"):
        fields.require(key)
    accept, expected = fields.table("accept"), fields.table("expected")
    unknown, label_set = fields.optional_table("unknown"), fields.optional_table("label_set")
    rule = DecisionRule(
        temperature_e6=fields.integer("temperature_e6", 1_000, 1_000_000_000),
        accept=Accept(accept.choice("score", SCORES), accept.integer("at_least_e6", -SCORE_E6_MAX, SCORE_E6_MAX)),
        unknown=None
        if unknown is None
        else Unknown(
            unknown.choice("method", UNKNOWN_METHODS), unknown.integer("reject_above_e6", -DISTANCE_E6_MAX, DISTANCE_E6_MAX)
        ),
        label_set=None if label_set is None else _label_set(label_set),
        expected=_expected(expected),
    )
    for read in (accept, unknown, fields):
        if read is not None:
            read.close()
    return rule


def _label_set(fields: Fields) -> LabelSetRule:
    rule = LabelSetRule(
        method=fields.choice("method", LABEL_SETS),
        coverage_e6=fields.integer("coverage_e6", 500_000, 999_999),
        thresholds_e6=tuple(fields.items("thresholds_e6", int, 1, CLASSES_MAX)),
        penalty_e6=fields.integer("penalty_e6", 0, 1_000_000),
        free_ranks=fields.integer("free_ranks", 0, CLASSES_MAX),
    )
    if not all(type(value) is int and 0 <= value <= SCORE_E6_MAX for value in rule.thresholds_e6):
        fields.problem(f"{fields.name('thresholds_e6')} holds something that is not a whole number from 0 to {SCORE_E6_MAX}")
    if rule.method != "raps" and (rule.penalty_e6, rule.free_ranks) != (0, 0):
        fields.problem(f"{fields.where} has what only raps has")
    fields.close()
    return rule


def _expected(fields: Fields) -> Expected:
    most = 2**31 - 1
    expected = Expected(
        cases=fields.integer("cases", 1, most),
        abstained=fields.integer("abstained", 0, most),
        unknown=fields.integer("unknown", 0, most),
    )
    if expected.abstained + expected.unknown > expected.cases:
        fields.problem(f"{fields.where} counts more than its cases")
    fields.close()
    return expected


def _runtime(fields: Fields) -> RuntimeSpec:
    spec = RuntimeSpec(
        opset=fields.integer("opset", 18, 99),
        onnxruntime_min=fields.text("onnxruntime_min", pattern=r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}"),
        precision=fields.choice("precision", PRECISIONS),
        providers=tuple(fields.items("providers", str, 1, 8)),
        rows_max=fields.integer("rows_max", 1, ROWS_MAX),
    )
    fields.close()
    return spec


def _golden(fields: Fields) -> Golden:
    golden = Golden(fields.integer("cases", 1, 256), fields.integer("logit_tolerance_e6", 1, 1_000_000))
    fields.close()
    return golden


def _provenance(fields: Fields) -> Provenance:
    tools, parity = fields.table("tools").rest(), fields.table("parity").rest()
    provenance = Provenance(fields.text("checkpoint_sha256", pattern=_HEX), tools, parity)
    if not all(isinstance(v, str) for v in tools.values()):
        fields.problem("provenance.tools holds something that is not a string")
    if not all(type(v) is int for v in parity.values()):  # True is not 1
        fields.problem("provenance.parity holds something that is not a whole number")
    fields.close()
    return provenance


def _check_together(manifest: Manifest, fields: Fields) -> None:
    """Rules that concern several fields at once."""
    roles = [part.role for part in manifest.parts]
    wants_reference = manifest.decision.unknown is not None
    if sorted(roles) != sorted([*ROLES[:4], *(["reference"] if wants_reference else [])]):
        fields.problem("the parts are not one of each role that the manifest needs")
    if len({part.name for part in manifest.parts}) != len(manifest.parts):
        fields.problem("two parts have one name")
    if wants_reference and manifest.outputs.embedding is None:
        fields.problem("a distance needs an embedding output")
    if manifest.outputs.logits == manifest.outputs.embedding:
        fields.problem("two outputs have one name")
    if len({spec.name for spec in manifest.inputs}) != len(manifest.inputs):
        fields.problem("two inputs have one name")
    if sum(spec.image is not None for spec in manifest.inputs) > 1:
        fields.problem("two inputs take images")
    label_set = manifest.decision.label_set
    if label_set and len(label_set.thresholds_e6) != (len(manifest.labels) if label_set.method == "lac_by_class" else 1):
        fields.problem("the label set has not as many thresholds as its method needs")
    if len({label.name for label in manifest.labels}) != len(manifest.labels):
        fields.problem("two labels have one name")

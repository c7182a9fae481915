"""The manifest: what the vendor signs about a model (bundle-format section 4).

The signed bytes are an in-toto Statement; its subjects are the bundle's parts and its predicate is the manifest. A field
here has the name that it has there, so writing is ``asdict`` and reading is the only place with rules. Whoever holds a
``Manifest`` holds one that obeys them.
"""

import hashlib
from dataclasses import asdict, dataclass

from appliance import canonical
from appliance.canonical import parse_time
from appliance.errors import MalformedBundle
from appliance.fields import Fields

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:x-appliance:manifest:v1"

ROLES = ("graph", "weights", "selftest", "reference")
RESIZES = ("stretch", "crop")
CHANGE_CLASSES = ("initial", "minor", "major")
VERSION_MAX = 2**31 - 1
PART_BYTES_MAX = 16 << 30
CLASSES_MAX = 100_000
ROWS_MAX = 1024
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
class InputSpec:
    """One image: uint8 ``[height, width, channels]`` once decoded (section 4.1)."""

    name: str
    height: int
    width: int
    channels: int
    resize: str
    pixels_max: int
    bytes_max: int

    @property
    def row_bytes(self) -> int:
        return self.height * self.width * self.channels


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
class Unknown:
    """When an image is not of the kind the model was made for."""

    method: str
    reject_above_e6: int


@dataclass(frozen=True, slots=True)
class DecisionRule:
    temperature_e6: int
    accept_at_least_e6: int
    unknown: Unknown | None


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    opset: int
    onnxruntime_min: str
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
    input: InputSpec
    outputs: OutputSpec
    labels: tuple[Label, ...]
    decision: DecisionRule
    runtime: RuntimeSpec
    golden: Golden
    provenance: Provenance
    parts: tuple[Part, ...]

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
        input=_input(fields.table("input")),
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
        id=fields.text("id", pattern=r"[a-z0-9-]{1,64}"),
        version=version,
        min_supported_version=fields.integer("min_supported_version", 1, max(1, version)),
    )
    fields.close()
    return model


def _input(fields: Fields) -> InputSpec:
    spec = InputSpec(
        name=fields.text("name", pattern=_NAME),
        height=fields.integer("height", 1, 4096),
        width=fields.integer("width", 1, 4096),
        channels=fields.integer("channels", 1, 3),
        resize=fields.choice("resize", RESIZES),
        pixels_max=fields.integer("pixels_max", 1, PIXELS_MAX),
        bytes_max=fields.integer("bytes_max", 1, 1 << 30),
    )
    if spec.channels == 2:
        fields.problem("input.channels is 2, and must be 1 or 3")
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
    fields.require("unknown")
    unknown = fields.optional_table("unknown")
    rule = DecisionRule(
        temperature_e6=fields.integer("temperature_e6", 1_000, 1_000_000_000),
        accept_at_least_e6=fields.integer("accept_at_least_e6", 0, 1_000_001),
        unknown=None
        if unknown is None
        else Unknown(unknown.choice("method", ("mahalanobis",)), unknown.integer("reject_above_e6", 0, 10**15)),
    )
    for read in (unknown, fields):
        if read is not None:
            read.close()
    return rule


def _runtime(fields: Fields) -> RuntimeSpec:
    spec = RuntimeSpec(
        opset=fields.integer("opset", 18, 99),
        onnxruntime_min=fields.text("onnxruntime_min", pattern=r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}"),
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
    if sorted(roles) != sorted([*ROLES[:3], *(["reference"] if wants_reference else [])]):
        fields.problem("the parts are not one of each role that the manifest needs")
    if len({part.name for part in manifest.parts}) != len(manifest.parts):
        fields.problem("two parts have one name")
    if wants_reference and manifest.outputs.embedding is None:
        fields.problem("a distance needs an embedding output")
    if manifest.outputs.logits == manifest.outputs.embedding:
        fields.problem("two outputs have one name")
    if len({label.name for label in manifest.labels}) != len(manifest.labels):
        fields.problem("two labels have one name")

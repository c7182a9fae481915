"""A second reader of bundles, written from docs/bundle-format.md alone, sharing no code with the first one."""

import base64
import hashlib
import io
import json
import os
import re
import unicodedata
from datetime import datetime, timedelta
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it once, when it is imported

import numpy as np
import onnx
import onnxruntime
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from PIL import Image, ImageOps

HEADS = {"ed25519": "302a300506032b6570032100", "ml-dsa-65": "308207b2300b0609608648016503040312038207a100"}
LOADERS = {"ed25519": ed25519.Ed25519PublicKey.from_public_bytes, "ml-dsa-65": mldsa.MLDSA65PublicKey.from_public_bytes}
FORBIDDEN = onnx.FunctionProto, onnx.TrainingInfoProto, onnx.SparseTensorProto, onnx.TypeProto.SparseTensor
USES, ONNX_DOMAIN, PROVIDER, CHUNK = ("exporter", "licensing"), ("", "ai.onnx"), "CPUExecutionProvider", 16_384 + 16
CANONICAL = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
# The forms of JSON values, for fits(). None is 16 deep, allows a float or takes more than 53 bits, so they keep section 1.
SIZE, VERSION, SIDE, BASE64, TIME = range(2**34 + 1), range(1, 2**31), range(1, 4_097), bytes, datetime
HASH, NAME, TEXT, RELEASE = "[0-9a-f]{64}", "[a-z0-9-]{1,64}", "(?s).{1,200}", r"\d{1,4}(\.\d{1,4}){2}"
TENSOR = "[A-Za-z0-9_.:/-]{1,128}"
ONNX = {"BOOL": 9, "UINT8": 2, "UINT16": 4, "UINT32": 12, "UINT64": 13, "INT8": 3, "INT16": 5, "INT32": 6, "INT64": 7}
KINDS = {**ONNX, "FP16": 10, "FP32": 1, "FP64": 11}  # ONNX's number of each datatype
NUMPY = {name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)) for name, number in KINDS.items()}
ENVELOPE = {"payload": BASE64, "payloadType": TEXT, "signatures": ({"keyid": HASH, "sig": BASE64}, 1, 8)}
KEYS = {"exporter": (BASE64, 0, 64), "licensing": (BASE64, 0, 64), "require": ("ed25519|ml-dsa-65", 1, 2), "vendor": NAME}
PUBLISHED = {"digest": HASH, "model": NAME, "version": VERSION, "revoked": [None, TEXT]}
POLICY = {**KEYS, "bundles": (PUBLISHED, 0, 10_000), "revoked_keys": ({"key_id": HASH, "reason": TEXT}, 0, 1_000)}
SUITE, LIMITS = {"kem": range(25_722, 25_723), "kdf": range(1, 2), "aead": range(2, 3)}, {"workers_max": range(1, 65)}
SUBJECT = {"manifest_sha256": HASH, "model": NAME, "version": VERSION, "site": TEXT, "recipient": HASH}
GRANT = {**SUBJECT, "not_before": TIME, "not_after": TIME, "grace_days": range(366), "suite": SUITE, "sealed": BASE64}
ANNOTATIONS = {"size": SIZE[1:], "plain_size": SIZE, "plain_sha256": HASH, "role": "graph|weights|selftest|card|reference"}
PART = {"annotations": ANNOTATIONS, "digest": {"sha256": HASH}, "name": "[a-z0-9_]{1,32}"}
MODEL = {"id": NAME, "version": VERSION, "min_supported_version": VERSION}
GOLDEN = {"cases": range(1, 257), "logit_tolerance_e6": range(1, 1_000_001)}
LIMITS_OF_IMAGES = {"pixels_max": range(1, 89_478_486), "bytes_max": range(1, 2**30 + 1)}
IMAGE = [None, {**LIMITS_OF_IMAGES, "resize": "stretch|crop", "decode": "full|draft"}]
WORDS = {"case": "kept|folded", "bytes_max": range(1, 2**20 + 1), "words": (TEXT, 1, 100_000)}
INPUT = {
    "name": TENSOR,
    "datatype": "|".join(KINDS),
    "shape": (range(1, 2**30 + 1), 0, 7),
    "image": IMAGE,
    "text": [None, WORDS],
}
OUTPUTS = {"logits": TENSOR, "embedding": [None, TENSOR]}
LABEL = {"name": TEXT, "code": [None, {"system": TEXT, "value": TEXT}]}
METHODS = {
    "mahalanobis": {"means": "cw", "precision": "ww"},
    "relative_mahalanobis": {"means": "cw", "precision": "ww", "centre": "w", "spread": "ww"},
    "vim": {"origin": "w", "residual": "wr", "scale": ""},
    "nearest": {"bank": "nw", "k": ""},
}
UNKNOWN = [None, {"method": "|".join(METHODS), "reject_above_e6": range(-(10**15), 10**15 + 1)}]
KEPT = {"coverage_e6": range(500_000, 10**6), "thresholds_e6": (range(10**12 + 1), 1, 100_000)}
PLAIN = {**KEPT, "method": "lac|lac_by_class", "penalty_e6": range(1), "free_ranks": range(1)}
RAPS = {**KEPT, "method": "raps", "penalty_e6": range(10**6 + 1), "free_ranks": range(100_001)}
SCORES = "max_probability|margin|entropy|top_two|max_logit|energy|gen"
ACCEPT = {"score": SCORES, "at_least_e6": range(-(10**12), 10**12 + 1)}
EXPECTED = {"cases": VERSION, "abstained": range(2**31), "unknown": range(2**31)}
SURE = {"temperature_e6": range(1_000, 10**9 + 1), "accept": ACCEPT, "expected": EXPECTED}
DECISION = {**SURE, "unknown": UNKNOWN, "label_set": [None, PLAIN, RAPS]}
RUNTIME = {
    "precision": "fp32|fp16|int8",
    "opset": range(18, 100),
    "onnxruntime_min": RELEASE,
    "providers": (TEXT, 1, 8),
    "rows_max": range(1, 1_025),
}
PROVENANCE = {"checkpoint_sha256": HASH, "tools": {"*": "(?s).*"}, "parity": {"*": range(1 - 2**53, 2**53)}}
HEAD = {"bundle_id": "[0-9a-f]{32}", "model": MODEL, "created": TIME, "change_class": "initial|minor|major"}
BODY = {"intended_use": "(?s).{1,2000}", "inputs": (INPUT, 1, 16), "outputs": OUTPUTS, "labels": (LABEL, 2, 100_000)}
MANIFEST = {**HEAD, **BODY, "decision": DECISION, "runtime": RUNTIME, "golden": GOLDEN, "provenance": PROVENANCE}
TYPES = {"_type": "https://in-toto[.]io/Statement/v1", "predicateType": "urn:x-appliance:manifest:v1"}
STATEMENT = {**TYPES, "predicate": MANIFEST, "subject": (PART, 4, 5)}
PLACE = {"location": "weights", "offset": "[0-9]{1,18}", "length": "[0-9]{1,18}"}
BUNDLE_FILE = "application/vnd.in-toto+json", 1_048_576, [STATEMENT], "exporter"
GRANT_FILE = "application/vnd.appliance.grant.v1+json", 65_536, [GRANT, {**GRANT, "limits": LIMITS}], "licensing"


def require(holds: bool) -> None:
    if not holds:
        raise ValueError("not what the page says")


def fits(form: Any, value: Any) -> bool:
    """Whether a value has a form: the keys of an object ("*": any), an array's item and its bounds, a pattern, a range."""
    match form, value:
        case dict(), dict():
            named = all(map(str.isascii, value)) if "*" in form else form.keys() == value.keys()
            return named and all(fits(form.get("*") or form[name], item) for name, item in value.items())
        case tuple(), list():
            return form[1] <= len(value) <= form[2] and all(fits(form[0], item) for item in value)
        case list(), _:  # alternatives
            return any(fits(choice, value) for choice in form)
        case str(), str():
            return re.fullmatch(form, value, re.ASCII) is not None
        case range(), int():
            return type(value) is int and value in form  # to Python true is the integer 1, to this format it is not
        case type(), str() if form is BASE64:
            return base64.b64encode(base64.b64decode(value)).decode() == value
        case type(), str():
            return datetime.fromisoformat(value).isoformat() == value.removesuffix("Z") + "+00:00"
    return form is value


def decode(data: bytes, form: Any) -> Any:
    """Canonical JSON of this form (section 1). Encoding it again shows another spelling, and a key that is given twice."""
    value = json.loads(data.decode())
    require(CANONICAL.encode(value).encode() == data and fits(form, value))
    return value


def read_policy(data: bytes) -> dict:
    """Section 10, with the keys by key id and the bundles by digest."""
    policy, keys = decode(data, POLICY), {use: {} for use in USES}
    for owner, spki in [(keys[use], base64.b64decode(text)) for use in USES for text in policy[use]]:
        algorithm = next(word for word in HEADS if spki.startswith(bytes.fromhex(HEADS[word])))  # DER has no other head
        owner[hashlib.sha256(spki).hexdigest()] = algorithm, LOADERS[algorithm](spki[len(HEADS[algorithm]) // 2 :])
    bundles = {entry.pop("digest"): entry for entry in policy["bundles"]}
    revoked = {entry["key_id"] for entry in policy["revoked_keys"]}
    current = keys["exporter"] | keys["licensing"]
    require(len(data) <= 4 * 1_024 * 1_024 and policy["require"] in (["ed25519"], ["ed25519", "ml-dsa-65"]))
    require(len(current) == len(policy["exporter"]) + len(policy["licensing"]) and not revoked & current.keys())
    require(len(bundles) == len(policy["bundles"]) and len(revoked) == len(policy["revoked_keys"]))
    return {**policy, **keys, "bundles": bundles, "revoked_keys": revoked}


class Reading:
    """The order of trust (section 7) for one bundle and one grant; `code` is the outcome of whatever fails next."""

    def step(self, code: str, holds: bool) -> None:
        self.code = code
        require(holds)

    def open_envelope(self, data: bytes, kind: tuple, candidates: list, site: list) -> tuple[bytes, Any, dict]:
        """Section 3, as steps 1, 2 and 3c ask: the payload, its value, and the policy of the one candidate that it names."""
        self.code, (payload_type, size_max, forms, use) = "malformed", kind
        envelope = decode(data, ENVELOPE)
        require(len(data) <= size_max and envelope["payloadType"] == payload_type)
        payload = base64.b64decode(envelope["payload"])
        signed = b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)
        named = [entry["keyid"] for entry in envelope["signatures"]]
        vendors = [policy for policy in candidates if policy[use].keys() & named]
        self.step("revoked", bool(vendors) or not any(policy["revoked_keys"].intersection(named) for policy in site))
        self.step("untrusted_signature", len(vendors) == 1)
        known = [entry for entry in envelope["signatures"] if entry["keyid"] in vendors[0][use]]
        for entry in known:
            vendors[0][use][entry["keyid"]][1].verify(base64.b64decode(entry["sig"]), signed)
        require(set(vendors[0]["require"]) <= {vendors[0][use][entry["keyid"]][0] for entry in known})
        self.code = "malformed"
        return payload, decode(payload, forms), vendors[0]

    def check_manifest(self, manifest: dict, parts: list[dict]) -> None:
        """The rules of section 4 that a form does not hold."""
        measured, outputs = manifest["decision"]["unknown"] is not None, manifest["outputs"]
        roles = ["card", "graph", *(["reference"] if measured else []), "selftest", "weights"]
        require(sorted(part["annotations"]["role"] for part in parts) == roles)
        for named in (parts, manifest["labels"], manifest["inputs"]):
            require(len({one["name"] for one in named}) == len(named))
        pictures = [spec for spec in manifest["inputs"] if spec["image"]]
        require(
            all(
                np.prod(spec["shape"], dtype=object) * NUMPY[spec["datatype"]].itemsize <= 2**30
                for spec in manifest["inputs"]
            )
        )
        require(len(pictures) <= 1 and all(spec["datatype"] == "UINT8" for spec in pictures))
        require(all(fits(SIDE, h) and fits(SIDE, w) and c in (1, 3) for h, w, c in [spec["shape"] for spec in pictures]))
        for spec in (spec for spec in manifest["inputs"] if spec["text"]):
            (length,) = spec["shape"]
            require(spec["datatype"] == "INT64" and not spec["image"] and 2 <= length <= 65_537)
            require(len(set(spec["text"]["words"])) == len(spec["text"]["words"]))
        kept, expected = manifest["decision"]["label_set"], manifest["decision"]["expected"]
        wanted = len(manifest["labels"]) if kept and kept["method"] == "lac_by_class" else 1
        require(kept is None or len(kept["thresholds_e6"]) == wanted)
        require(expected["abstained"] + expected["unknown"] <= expected["cases"])
        require(manifest["model"]["min_supported_version"] <= manifest["model"]["version"])
        require(outputs["logits"] != outputs["embedding"] and not (measured and outputs["embedding"] is None))

    def unwrap_key(self, grant: dict, seed: bytes) -> bytes:
        """Step 3e: the content key, by the key of section 8 and the HPKE of section 6."""
        expanded = hashlib.shake_256(HKDFExpand(hashes.SHA256(), 32, b"hpke").derive(seed)).digest(96)
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        require(grant["recipient"] == hashlib.sha256(public).hexdigest())
        bound = {name: value for name, value in grant.items() if name != "sealed"}
        info = b"appliance grant v1\x00" + CANONICAL.encode(bound).encode()
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        key = suite.decrypt(base64.b64decode(grant["sealed"]), hpke.MLKEM768X25519PrivateKey(lattice, curve), info=info)
        require(len(key) == 32)
        return key

    def open_parts(self, body: bytes, parts: list[dict], key: bytes, bundle_id: bytes) -> dict[str, bytes]:
        """Steps 4 and 5: what each role's part decrypts to, as one message of Cobblestone-256 (section 5)."""
        stream, opened = io.BytesIO(body), {}
        require(len(body) == sum(part["annotations"]["size"] for part in parts))
        sealed = [stream.read(part["annotations"]["size"]) for part in parts]
        require([hashlib.sha256(data).hexdigest() for data in sealed] == [part["digest"]["sha256"] for part in parts])
        for place, wanted in enumerate(part["annotations"] for part in parts):
            salt, commitment, message = sealed[place][:24], sealed[place][24:56], sealed[place][56:]
            require(len(message) % CHUNK >= 16)  # the last chunk is never a full one; without a short one the part was cut
            info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + bundle_id + place.to_bytes(4, "big")
            derived = HKDFExpand(hashes.SHA512(), 32 + 12 + 32, info).derive(key)
            require(derived[44:] == commitment)
            cipher, nonce = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
            chunks = enumerate(message[start : start + CHUNK] for start in range(0, len(message), CHUNK))
            plain = b"".join(cipher.decrypt((nonce ^ number).to_bytes(12, "big"), chunk, None) for number, chunk in chunks)
            require(len(plain) == wanted["plain_size"] and hashlib.sha256(plain).hexdigest() == wanted["plain_sha256"])
            opened[wanted["role"]] = plain
        return opened

    def shapes(self, values: Any) -> list[tuple[str, int, list[int | None]]]:
        """The names, kinds and dimensions of dense tensors, by name; None for a dimension that is left open."""
        found = [(value.name, value.type.tensor_type) for value in values]
        dims = [[one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim] for _, kind in found]
        return sorted((name, kind.elem_type, sizes) for (name, kind), sizes in zip(found, dims, strict=True))

    def check_graph(self, parts: dict[str, bytes], manifest: dict) -> None:
        """Step 6. The list of messages grows while it is read, so no inner graph, attribute or tensor is passed over."""
        model, outputs = onnx.ModelProto.FromString(parts["graph"]), manifest["outputs"]
        messages: list[Any] = [model]
        for message in messages:
            for value in (value for field, value in message.ListFields() if field.type == field.TYPE_MESSAGE):
                messages.extend([value] if hasattr(value, "ListFields") else value)
        nodes = [message for message in messages if isinstance(message, onnx.NodeProto)]
        require(len(nodes) <= 100_000 and all(node.domain in ONNX_DOMAIN for node in nodes))
        opsets = [(entry.domain in ONNX_DOMAIN, entry.version) for entry in model.opset_import]
        require(opsets == [(True, manifest["runtime"]["opset"])] and not any(isinstance(one, FORBIDDEN) for one in messages))
        for tensor in (message for message in messages if isinstance(message, onnx.TensorProto)):
            place = {entry.key: entry.value for entry in tensor.external_data}
            require(len(place) == len(tensor.external_data) and fits(PLACE if tensor.data_location else {}, place))
            require(int(place.get("offset", 0)) + int(place.get("length", 0)) <= len(parts["weights"]))
        wanted = [(spec["name"], KINDS[spec["datatype"]], [None, *spec["shape"]]) for spec in manifest["inputs"]]
        require(self.shapes(model.graph.input) == sorted(wanted))
        found = self.shapes(model.graph.output)
        found.remove((outputs["logits"], 1, [None, len(manifest["labels"])]))
        width = (found[0][2][1] if found else None) or "open"
        require(found == ([] if outputs["embedding"] is None else [(outputs["embedding"], 1, [None, width])]))

    def open_session(self, parts: dict[str, bytes], runtime: dict) -> onnxruntime.InferenceSession:
        """Step 7, with the one provider that every machine has."""
        release = [int(number) for number in re.findall("[0-9]+", onnxruntime.__version__)[:3]]
        require(PROVIDER in runtime["providers"] and release >= list(map(int, runtime["onnxruntime_min"].split("."))))
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.load_model_format", "ONNX")  # the bytes might pass for another format too
        options.add_external_initializers_from_files_in_memory(["weights"], [parts["weights"]], [len(parts["weights"])])
        session = onnxruntime.InferenceSession(parts["graph"], options, providers=[PROVIDER])
        require(session.get_providers() == [PROVIDER])
        return session

    def preprocess(self, encoded: np.ndarray, spec: dict) -> np.ndarray:
        """Section 4.1: a batch of one row."""
        wanted, (height, width, channels) = spec["image"], spec["shape"]
        image = Image.open(io.BytesIO(encoded), formats=["PNG", "JPEG"])
        # Pillow reduces 16-bit colour while it decodes and calls it RGB; only the raw mode of its tiles still tells.
        require(image.mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA") and ";16" not in str(image.tile))
        require(len(encoded) <= wanted["bytes_max"] and image.width * image.height <= wanted["pixels_max"])
        if wanted["decode"] == "draft":
            image.draft(image.mode, [max(height, width)] * 2)
        image, mode = ImageOps.exif_transpose(image).convert("RGBA"), "L" if channels == 1 else "RGB"
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(mode)
        resize = ImageOps.fit if wanted["resize"] == "crop" else Image.Image.resize
        return np.asarray(resize(image, (width, height), Image.Resampling.BILINEAR)).reshape(1, *spec["shape"])

    def tokenize(self, encoded: np.ndarray, spec: dict) -> np.ndarray:
        """Section 4.1: a batch of one text."""
        wanted = spec["text"]
        said = unicodedata.normalize("NFKC", encoded.tobytes().decode())
        decomposed = "".join(unicodedata.normalize("NFKD", one) for one in encoded.tobytes().decode())
        combining = "".join("1" if unicodedata.combining(one) else "0" for one in decomposed)
        require("1" * 31 not in combining)
        if wanted["case"] == "folded":
            said = unicodedata.normalize("NFKC", said.casefold())
        tokens: list[str] = []
        inside = False
        for character in said:
            word = character == "_" or character.isalnum()
            if word and inside:
                tokens[-1] += character
            elif not character.isspace():
                tokens.append(character)
            inside = word
        require(len(encoded) <= wanted["bytes_max"] and 1 <= len(tokens) < spec["shape"][0])
        numbers = {one: number for number, one in enumerate(wanted["words"], 2)}
        row = [len(tokens), *(numbers.get(one, 1) for one in tokens)]
        return np.array([row + [0] * (spec["shape"][0] - len(row))], np.int64)

    def check_reference(self, data: bytes, method: str, classes: int, width: int) -> None:
        """Sections 4.2 and 4.3: a letter for each dimension of each array."""
        forms = METHODS[method]
        arrays = dict(zip(forms, self.read_archive(data, dict.fromkeys(forms, "float32")), strict=True))
        free = {"c": classes, "w": width}
        for name, letters in forms.items():
            require(arrays[name].ndim == len(letters) and bool(np.isfinite(arrays[name]).all()))
            require(all(free.get(one, size) == size for one, size in zip(letters, arrays[name].shape, strict=True)))
        for name in {"precision", "spread"} & arrays.keys():
            np.linalg.cholesky(arrays[name].astype(np.float64))
        if method == "vim":
            require(1 <= arrays["residual"].shape[1] <= width)
        if method == "nearest":
            require(float(arrays["k"]).is_integer() and 1 <= arrays["k"] <= len(arrays["bank"]))

    def read_archive(self, data: bytes, kinds: dict[str, str]) -> list[np.ndarray]:
        """An `.npz` archive of section 4.3: arrays of these names and types and no other."""
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        require(sorted(archive.files) == sorted(kinds) and all(archive[name].dtype == kinds[name] for name in kinds))
        return [archive[name] for name in kinds]

    def check_golden(self, session: Any, manifest: dict, parts: dict[str, bytes]) -> None:
        """Step 8. A difference that is not a number is not within the tolerance."""
        cases, classes, outputs = manifest["golden"]["cases"], len(manifest["labels"]), manifest["outputs"]
        self.code, inputs = "malformed", manifest["inputs"]
        require(len(parts["card"].decode()) >= 0 and len(parts["card"]) <= 1_048_576)
        if "reference" in parts:
            width = next(one.shape[1] for one in session.get_outputs() if one.name == outputs["embedding"])
            self.check_reference(parts["reference"], manifest["decision"]["unknown"]["method"], classes, width)
        encoded = [bool(spec["image"] or spec["text"]) for spec in inputs]
        names = [["tensor", "encoded"][one] for one in encoded]
        specs = [(f"{names[j]}_{i}_{j}", s) for i in range(cases) for j, s in enumerate(inputs)]
        *given, wanted = self.read_archive(
            parts["selftest"],
            {**{at: NUMPY["UINT8" if at.startswith("encoded") else s["datatype"]] for at, s in specs}, "logits": "float32"},
        )
        require(wanted.shape == (cases, classes))
        for (at, spec), array in zip(specs, given, strict=True):
            require(array.ndim == 1 if at.startswith("encoded") else array.shape == tuple(spec["shape"]))
        self.code, rows = "failed_golden_case", [{} for _ in range(cases)]
        for place, ((_, spec), array) in enumerate(zip(specs, given, strict=True)):
            prepare = (
                self.preprocess if spec["image"] else self.tokenize if spec["text"] else lambda array, spec: array[None]
            )
            rows[place // len(inputs)][spec["name"]] = prepare(array, spec)
        logits = np.concatenate([session.run([outputs["logits"]], row)[0] for row in rows])
        distance = np.abs(logits.astype(np.float64) - wanted) * 1_000_000
        require(logits.shape == wanted.shape and bool((distance <= manifest["golden"]["logit_tolerance_e6"]).all()))

    def follow(self, bundle: bytes, grant_file: bytes, site: list, seed: bytes, time: str | None, version_min: int) -> None:
        """Steps 1 to 8."""
        end = 12 + int.from_bytes(bundle[8:12], "big")
        require(bundle[:8] == b"\x89MB\x01\r\n\x1a\n" and 12 < end <= len(bundle))
        payload, statement, policy = self.open_envelope(bundle[12:end], BUNDLE_FILE, site, site)
        manifest, parts, digest = statement["predicate"], statement["subject"], hashlib.sha256(payload).hexdigest()
        self.check_manifest(manifest, parts)
        published = {"model": manifest["model"]["id"], "version": manifest["model"]["version"], "revoked": None}
        entry = published if policy["bundles"] is None else policy["bundles"].get(digest)  # None: publishes anything
        self.step("revoked", entry is None or entry["revoked"] is None)
        self.step("not_admitted", entry == published)
        self.step("rolled_back", manifest["model"]["version"] >= version_min)
        _, grant, _ = self.open_envelope(grant_file, GRANT_FILE, [policy], [policy])
        require(grant["not_before"] <= grant["not_after"])  # times of one spelling are in the order of their texts
        late = datetime.fromisoformat(time or grant["not_after"]) - datetime.fromisoformat(grant["not_after"])
        self.step(
            "not_admitted", grant["manifest_sha256"] == digest and grant["not_before"] <= (time or grant["not_before"])
        )
        require(late <= timedelta(days=grant["grace_days"]))
        self.code = "wrong_key"
        key = self.unwrap_key(grant, seed)
        self.code = "corrupt_payload"
        opened = self.open_parts(bundle[end:], parts, key, bytes.fromhex(manifest["bundle_id"]))
        self.code = "refused_graph"
        self.check_graph(opened, manifest)
        self.check_golden(self.open_session(opened, manifest["runtime"]), manifest, opened)


def read(
    bundle: bytes, grant: bytes, policies: list[bytes] | None, index: dict, time: str | None, version_min: int = 1
) -> str:
    """'ok' or the code of section 7. policies None means the README's default policy, built from the index's keys."""
    keys = {use: [base64.b64encode(bytes.fromhex(HEADS["ed25519"] + index[use])).decode()] for use in USES}
    default = {**keys, "vendor": "vectors", "require": ["ed25519"], "bundles": [], "revoked_keys": []}
    own = {**read_policy(CANONICAL.encode(default).encode()), "bundles": None}
    reading = Reading()
    try:
        reading.code = "malformed"
        site = [own] if policies is None else [read_policy(policy) for policy in policies]
        reading.follow(bundle, grant, site, bytes.fromhex(index["appliance_seed"]), time, version_min)
    except Exception:
        return reading.code
    return "ok"

"""The cases of a recipe: three kinds, one reading, and a sentence for whatever cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import Label
from appliance.model import inputs, text
from export import kinds, validation
from export.errors import RecipeError
from export.kinds import ImageInput, Tensor, TensorInput, TextInput
from export.recipe import Recipe, Torch

TENSORS = TensorInput({"age": Tensor("FP32", ()), "dose": Tensor("INT64", (2,))})
TEXTS = TextInput(words=("cough", "fever", "."), tokens_max=6)
IMAGES = ImageInput(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))


def asked(folder: Path, kind: Any, validation: str, **changes: Any) -> Recipe:
    (folder / "weights").touch()
    return Recipe(
        id="net",
        version=1,
        intended_use="a test",
        network=Torch(module=object, weights=folder / "weights"),
        input=kind,
        labels=(Label("well", None), Label("ill", None)),
        validation=folder / validation,
        error_among_accepted_max=0.1,
        **changes,
    )


def arrays(folder: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {
        "age": np.float32([1, 2, 3]),
        "dose": np.arange(6).reshape(3, 2),
        "labels": np.array([0, 1, 1]),
    } | changes
    np.savez(folder / "cases.npz", **{name: value for name, value in given.items() if value is not None})
    return folder / "cases.npz"


def test_tensors_come_from_one_file(tmp_path: Path) -> None:
    """In the order of the recipe, and a caller's bytes are read to the same rows."""
    arrays(tmp_path, groups=np.array(["p1", "p1", "p2"]))
    found = validation.load(asked(tmp_path, TENSORS, "cases.npz"))
    assert [array.tolist() for array in found.rows] == [[1, 2, 3], [[0, 1], [2, 3], [4, 5]]]
    assert (found.labels.tolist(), found.groups, found.names[2]) == ([0, 1, 1], ("p1", "p1", "p2"), "row 2")
    sent = found.content(1)
    assert [inputs.read(spec, content).tolist() for spec, content in zip(TENSORS.specs, sent, strict=True)] == [
        [2],
        [[2, 3]],
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"age": None}, "lacks the arrays age"),
        ({"labels": None}, "lacks the arrays labels"),
        ({"age": np.float64([1, 2, 3])}, r"array age is float64 \[3\], and must be float32"),
        ({"dose": np.zeros((2, 2), np.int64)}, r"array dose is int64 \[2, 2\]"),
        ({"labels": np.array([0, 1, 2])}, "labels must be from 0 to 1"),
        ({"labels": np.array([0.0, 1, 1])}, "labels must be whole numbers"),
        ({"groups": np.array(["p1"])}, "groups texts, one for each of the 3 cases"),
        ({"age": np.zeros(0, np.float32)}, "array age is float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    arrays(tmp_path, **changes)
    with pytest.raises(RecipeError, match=said):
        validation.load(asked(tmp_path, TENSORS, "cases.npz"))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "cases.npz", age=np.array([object()]), allow_pickle=True)
    with pytest.raises(RecipeError, match="without pickles"):
        validation.load(asked(tmp_path, TENSORS, "cases.npz"))


def test_texts_come_from_a_table(tmp_path: Path) -> None:
    """A quotation mark is a mark as any other; a group is optional; a caller's text is read to the same row."""
    (tmp_path / "cases.tsv").write_text('label\ttext\tgroup\nill\tFever."\tp1\nwell\tno Cough\tp2\n')
    found = validation.load(asked(tmp_path, TEXTS, "cases.tsv"))
    assert found.rows[0].tolist() == [[3, 3, 4, 1, 0, 0, 0], [2, 1, 2, 0, 0, 0, 0]]
    assert (found.labels.tolist(), found.groups, found.names) == ([1, 0], ("p1", "p2"), ("line 2", "line 3"))
    assert inputs.read(TEXTS.specs[0], found.content(0)[0]).tolist() == found.rows[0][:1].tolist()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "no line below a first one that names label and text"),
        ("label\ttext\n", "no line below"),
        ("label\twords\nill\tcough\n", "names label and text"),
        ("label\ttext\nsick\tcough\n", "line 2 of cases.tsv has .* a label of no name"),
        ("label\ttext\nill\n", "line 2 of cases.tsv has another number of columns"),
        ("label\ttext\nill\ta\tb\n", "line 2 of cases.tsv has another number of columns"),
        ("label\ttext\nill\ta\nill\ta b c d e f g\n", "Text 1: it has 7 words and marks; this model takes 1 to 6"),
        (b"label\ttext\nill\t\xff\n", "not a tab-separated file in UTF-8"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: str | bytes, said: str) -> None:
    (tmp_path / "cases.tsv").write_bytes(table.encode() if isinstance(table, str) else table)
    with pytest.raises(RecipeError, match=said):
        validation.load(asked(tmp_path, TEXTS, "cases.tsv"))


def test_what_is_none_of_the_labels_needs_none(tmp_path: Path) -> None:
    """Any folder below, any text, arrays without labels."""
    (tmp_path / "cases.tsv").write_text("text\ncough\n")
    (tmp_path / "none.tsv").write_text("text\nthe weather\n")
    texts = asked(tmp_path, TEXTS, "cases.tsv", none_of_these=tmp_path / "none.tsv")
    found = validation.strange(texts)
    assert found is not None
    assert (found.labels.tolist(), found.rows[0][0, :3].tolist()) == ([-1], [2, 1, 1])
    assert validation.strange(asked(tmp_path, TEXTS, "cases.tsv")) is None
    arrays(tmp_path, labels=None)
    strange = validation.strange(asked(tmp_path, TENSORS, "cases.npz", none_of_these=tmp_path / "cases.npz"))
    assert strange is not None
    assert strange.labels.tolist() == [-1] * 3


def test_group_is_what_the_recipe_makes_of_a_name(trained: Path) -> None:
    kind = ImageInput(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
    made = asked(trained, kind, "validation", group=lambda name: name[2:4])
    object.__setattr__(made, "labels", tuple(Label(str(digit), None) for digit in range(10)))
    found = validation.load(made)
    assert found.groups is not None
    assert found.groups[0] == found.names[0][2:4]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (TensorInput({}), "a model has 1 to 16 inputs"),
        (TensorInput({"a b": Tensor("FP32", ())}), "'a b' is not a Python name"),
        (TensorInput({"a": Tensor("UINT16", ())}), "UINT16 is not a datatype that a module can take"),
        (TensorInput({"a": Tensor("FP32", (0,))}), "a shape has at most 7 sizes of at least 1"),
        (TensorInput({"a": Tensor("FP32", (1 << 29,))}), "a row has more than"),
        (TextInput(words=("Cough",), tokens_max=3), "'Cough' is never one token of a text"),
        (TextInput(words=("a b",), tokens_max=3), "'a b' is never one token"),
        (TextInput(words=("a", "a"), tokens_max=0), "a word twice; tokens_max must be from 1"),
        (
            ImageInput(height=0, width=8, channels=2, mean=(), std=(), order="GRB"),
            "height must .* channels must .* order must",
        ),
        ("images", "input must be an ImageInput"),
    ],
)
def test_input_that_cannot_be_is_refused(tmp_path: Path, kind: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        asked(tmp_path, kind, "cases")


@given(st.lists(st.text(max_size=40), max_size=8), st.sampled_from(["kept", "folded"]))
def test_vocabulary_is_made_of_tokens(texts: list[str], case: str) -> None:
    """Whatever the texts are, every word of a vocabulary made from them is one token, so that a recipe may have it."""
    words = kinds.vocabulary(texts, case=case)
    assert all(text.split(word, case) == [word] for word in words)
    assert len(set(words)) == len(words)


def test_rare_words_stay_out_of_a_vocabulary() -> None:
    """They may name somebody."""
    assert kinds.vocabulary(["Anna coughs", "she coughs", "she sleeps"], seen_min=2) == ("coughs", "she")

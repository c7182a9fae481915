"""The page: whole in itself, well formed, escaped, and legible."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from export import page as pages
from export.card import card
from export.findings import Findings
from export.page import page
from export.shares import at_most
from tests.export import found
from tests.export.cases import of_images

VOID = {"meta", "img", "link", "br", "hr", "input"}
STYLE = Path(pages.__file__).parent / "templates" / "report.css"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "a & b",
    "</svg></table></html>",
    r"$\frac{1}{0}$",
    "javascript:alert(1)",
    "url(https://example.org/x)",
    "Größe 大きさ\n\u202e",
    "x" * 200,
)


class Page(HTMLParser):
    """Fails at a tag that is closed in the wrong place, an address twice, or a reference to what is elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def findings() -> Findings:
    return found.findings()


@pytest.fixture(scope="module")
def made(findings: Findings) -> str:
    return page(findings)


def require_alone(text: str) -> Page:
    """The page refers to nothing outside it, and has nothing that runs."""
    read = Page(text)
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "foreignobject", "image"}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    assert [src for src in read.values("src") if not src.startswith("data:image/")] == []
    assert [href for href in read.values("href") if not href.startswith("#")] == []
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert [value for value in read.values("style") if re.search(r"url\((?!#)", value)] == []
    return read


def test_page_is_well_formed_and_alone(made: str) -> None:
    read = require_alone(made)
    assert "default-src 'none'" in read.values("content")[0]
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    used = [href[1:] for href in read.values("href")] + re.findall(r"url\(#([^)]*)\)", made)
    assert set(used) <= set(ids)


def test_no_address_stands_in_the_page(made: str) -> None:
    """Not even in what a drawing carries: SVG files name their schemas by address."""
    assert re.findall(r"\w+://", made) == []


def test_every_picture_has_its_words(made: str) -> None:
    read = Page(made)
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(images) == 24
    assert all(image["alt"] for image in images)
    charts = [attributes["aria-label"] for _, attributes in read.tags if attributes.get("role") == "img"]
    assert len(charts) == 5
    assert all(re.search(r"\d", words) for words in charts)
    assert [tag for tag, attributes in read.tags if tag == "svg" and attributes.get("aria-hidden") != "true"] == []


def test_headline_numbers_are_told_with_their_n_and_interval(made: str, findings: Findings) -> None:
    text, low, high = Page(made).text, *findings.accuracy_interval
    assert f"{findings.right.sum():,} of 1,297 validation cases; 95% interval {low:.1%} to {high:.1%}" in text
    point = findings.calibration.point
    assert f"{point.errors} wrong in {point.accepted}; with 95% confidence at most {at_most(point.bound, 2)}" in text
    assert "is not promised" in text
    assert "FPR95" in text
    assert found.DIGEST in text
    assert "not clinical" not in text
    assert "no clinical evaluation" in text


def test_hostile_names_are_only_text() -> None:
    hostile = found.findings(HOSTILE)
    use = replace(hostile.manifest, intended_use="<b onclick=x>Use</b> {{ f }}")
    read = require_alone(page(replace(hostile, manifest=use)))
    assert "<b onclick=x>Use</b> {{ f }}" in read.text
    for name in HOSTILE[:4]:
        assert " ".join(name.split()) in read.text


def test_no_place_of_this_machine_is_told(made: str) -> None:
    assert str(Path.cwd()) not in made
    assert str(Path.home()) not in made
    assert str(Path(pages.__file__).parent) not in made


def test_without_pictures_no_image_and_no_case_is_shown(findings: Findings) -> None:
    text = page(findings, pictures=False)
    assert ";base64," not in text
    assert "<img" not in text
    assert ".png" not in text
    assert "patient 1" not in text
    assert "left out of this file" in Page(text).text


def test_patients_are_only_counted(made: str) -> None:
    assert re.findall(r"patient \d", made) == []


def test_texts_have_a_page_of_what_there_is() -> None:
    read = require_alone(page(found.words()))
    assert "line " in read.text
    assert "What was most often taken for what" in read.text  # 30 labels are too many for a table
    assert 'id="unknown"' not in page(found.words())
    assert [tag for tag, _ in read.tags if tag == "img"] == []


def test_many_labels_are_told_by_those_answered_least_well() -> None:
    read = Page(page(found.words(100)))
    assert "The 40 labels answered least well, of 100." in read.text


def test_labels_without_cases_are_not_called_better_answered() -> None:
    """Of a thousand labels five have cases: those are not the worst five, but the only ones that anybody looked at."""
    made = found.words(1000, unseen=995)
    read, text = Page(page(made)), card(made)
    for told in (read.text, text):
        assert "Of 1,000 labels 5 have cases; the others are left out here." in told
        assert "least well" not in told
        assert "of the 5 labels with" in told
        assert "no label" not in told
    assert "1,000 labels ·" in read.text
    some = Page(page(found.words(1000, unseen=900))).text
    assert "The 40 labels answered least well, of 100 with cases; the model has 1,000." in some


def test_a_label_without_a_case_has_no_figures_and_is_red() -> None:
    unseen = found.words(12, unseen=1)
    assert unseen.by_label[11].interval is None
    read = require_alone(page(unseen))
    assert "There is no validation case of 1 of 12 labels, answer 11 among them." in read.text
    assert "answer 11 0 – – 0 0 –" in read.text
    assert r"| answer 11 | – | 0 | – | – | 0, 0 | – |" in card(unseen)


def test_the_same_findings_make_the_same_page(findings: Findings, made: str) -> None:
    assert page(findings) == made


def test_photographs_keep_the_page_small(findings: Findings) -> None:
    """Noise, which no format makes small: 500 images of 224 × 224."""
    labels = findings.cases.labels[:1297]
    images = np.random.default_rng(0).integers(0, 256, (1297, 224, 224, 3), dtype=np.uint8)
    drawn = tuple(replace(each, drop=np.ones((7, 7))) for each in findings.probes.worst)
    large = replace(findings, cases=of_images(images, labels), probes=replace(findings.probes, worst=drawn))
    assert len(page(large).encode()) < 2 << 20


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    """As the Web Content Accessibility Guidelines 2.2 define it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_and_lines_stand_out(scheme: int) -> None:
    """4.5 to 1 for text, 3 to 1 for what is drawn."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    color = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", blocks[scheme]))
    for behind in ("paper", "panel"):
        assert min(contrast(color[name], color[behind]) for name in ("ink", "muted", "c1")) >= 4.5
    assert min(contrast(color["on"], color[grade]) for grade in ("red", "amber", "good")) >= 4.5
    assert min(contrast(color[name], color["paper"]) for name in ("c1", "c2", "c3", "c4", "muted")) >= 3

"""The page for whoever releases (docs/releasing.md), run from top to bottom as it is written."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from appliance import trust
from appliance.bundle import enrolment
from tests.export.desk import DIGITS, ROOT, Desk, run_command

PAGE = ROOT / "docs" / "releasing.md"
WORDS = ("alice", "bob", "ml", "sales", "quality", "content", "new")


def commands() -> list[list[str]]:
    """The page's commands, in order, as a shell would split them."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


@pytest.fixture
def place(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page takes for granted: passphrases, a recipe, a hospital's request, keys for those that are replaced."""
    monkeypatch.chdir(tmp_path)
    for name in WORDS:
        (tmp_path / f"{name}.words").write_text(f"the passphrase of {name}\n")
    shutil.copytree(desk.data, tmp_path, dirs_exist_ok=True)
    shutil.copy(DIGITS / "recipe.py", tmp_path / "recipe.py")
    (tmp_path / "st-example.json").write_bytes(enrolment.request(bytes(32), "St. Example", "2026-01-01T00:00:00Z"))
    code, _, err = run_command(
        "keygen", "--out", "new", "--role", "exporter", "--role", "release", "--passphrase-file", "new.words"
    )
    assert code == 0, err
    return tmp_path


def test_every_command_of_the_page_works_in_its_turn(place: Path) -> None:
    digest, ran = "", []
    for words in commands():
        assert words[:3] == ["python", "-m", "export"]
        arguments = [digest if re.fullmatch("[0-9a-f]{64}", word) else word for word in words[3:]]
        code, out, err = run_command(*arguments, answer="y\n")
        assert code == 0, (words, out, err)
        if found := re.search(r"published .* digest ([0-9a-f]{64})", out):
            digest = found[1]
        ran.append(" ".join(words[3:5]))
    assert {"trust init", "trust sign", "trust publish", "trust revoke", "trust rotate", "sign chest-3.bundle"} <= set(ran)
    heard = trust.refresh(place, trust.read_medium(place / "repository"), None)
    assert heard.vendor.root == 3
    assert len(heard.policy.exporter.keys) == 2
    assert heard.policy.bundles[digest].revoked == "Misses small nodules in children."

"""A page that shows a command is held to it."""

import re
import shlex
from pathlib import Path

import click
import pytest

from appliance import config
from appliance.cli import group
from appliance.config import ROLES
from export.cli import commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PROGRAMS = {"appliance": group, "export": commands}


def shown_commands() -> list[tuple[str, str]]:
    """Every command line in a shell block or transcript of a page: the page's name, and the line."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.S | re.M)
        for block in (text for language, text in blocks if language in ("", "sh")):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ").strip()
                if re.match(r"(\.venv/bin/)?appliance |python -m export ", line):
                    found.append((page.name, line))
    return found


def test_pages_do_show_commands() -> None:
    assert len(shown_commands()) >= 10


@pytest.mark.parametrize(("page", "line"), shown_commands())
def test_a_command_on_a_page_is_one_that_exists(page: str, line: str) -> None:
    """Each word that leads to a command is known, and so is each option; a required option is not forgotten."""
    words = shlex.split(line, comments=True)
    program = "export" if words[:2] == ["python", "-m"] else "appliance"
    command: click.Command = PROGRAMS[program]
    rest = words[words.index("export") + 1 :] if program == "export" else words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command)
        found = command.get_command(context, rest[0])
        assert found is not None, f"{page}: {rest[0]}"
        command, rest = found, rest[1:]
    options = {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts}
    used = {word for word in rest if word.startswith("--")}
    assert used <= options, page
    required = {p.opts[0] for p in command.params if isinstance(p, click.Option) and p.required}
    assert required <= used, page


@pytest.mark.parametrize("uncommented", [False, True])
def test_the_example_configuration_is_valid_and_complete(tmp_path: Path, uncommented: bool) -> None:
    """It parses; and what it leaves commented out parses too."""
    text = (ROOT / "deploy" / "appliance.toml").read_text()
    if uncommented:
        text = re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.M)
        text = re.sub(r"^passphrase_file .*\n", "", text, flags=re.M)  # the one or the other
    (tmp_path / "appliance.toml").write_text(text)
    found = config.read(tmp_path / "appliance.toml", to_serve=False)
    assert (found.plaintext_address, found.passphrase.is_credential) == (
        ("127.0.0.1:8500", True) if uncommented else (None, False)
    )
    assert {role for rule in found.rules for role in rule.roles} == set(ROLES)


def test_every_alarm_is_in_the_operators_table() -> None:
    kinds = set(re.findall(r'Alarm\("(\w+)"', (ROOT / "appliance" / "alarms.py").read_text()))
    page = (ROOT / "docs" / "operating.md").read_text()
    table = page[page.index("| `kind` | Means") :].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+_\w+|revoked)`", table.replace("| `kind`", ""))) == kinds


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_is_in_the_example() -> None:
    """A setting that the reader knows and the example does not show would be a secret."""
    source = (ROOT / "appliance" / "config.py").read_text()
    example = (ROOT / "deploy" / "appliance.toml").read_text()
    names = set(re.findall(r'(?:integer|items|text|_file|_address)\(\w*,? ?"(\w+)"', source)) | {"plaintext"}
    assert len(names) > 15
    missing = [name for name in names if not re.search(rf"\b{name}\b", example)]
    assert not missing

"""The configuration: everything that is wrong with it is said at once, and nothing in it is guessed."""

import hashlib
from pathlib import Path

import pytest

from appliance import config
from appliance.config import Config
from appliance.errors import ConfigError

TOML = """\
[site]
name = "Test hospital"
[server]
address = "0.0.0.0:8443"
certificate = "file"
key = "file"
client_ca = "file"
[keys]
passphrase_file = "file"
"""
PLAINTEXT = '[server.plaintext]\nroles = ["observe"]\n'
ACCESS = '[[access]]\ncaller = "DNS:reader"\n'


def read(folder: Path, text: str = TOML, *, to_serve: bool = True) -> Config:
    (folder / "file").write_text("")
    (folder / "appliance.toml").write_text(text)
    return config.read(folder / "appliance.toml", to_serve=to_serve)


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return caught.value.problems


def test_the_least_configuration_has_its_defaults(tmp_path: Path) -> None:
    made = read(tmp_path)
    assert (made.site, made.site_name, made.address) == (tmp_path, "Test hospital", "0.0.0.0:8443")
    assert (made.metrics_address, made.plaintext_address, made.rules) == (("127.0.0.1", 9464), None, ())
    assert made.engine.providers == ("CPUExecutionProvider",)
    assert made.tls.certificate == made.passphrase.path == tmp_path / "file"
    assert not made.passphrase.is_credential
    assert [made.keys, made.audit, made.operators_socket] == [tmp_path / n for n in ("keys", "audit", "operator.sock")]
    assert (made.engine.versions_max, made.limits.bundle_bytes_max) == (2, 4 << 30)
    assert made.digest == hashlib.sha256(TOML.encode()).hexdigest()


def test_rules_are_read(tmp_path: Path) -> None:
    rule = 'roles = ["predict", "observe"]\nmodels = ["chest", "*"]\n'
    made = read(tmp_path, TOML + ACCESS + rule + PLAINTEXT + 'address = "unix:/run/appliance.sock"\n')
    assert (made.rules[0].caller, made.rules[0].roles) == ("DNS:reader", {"predict", "observe"})
    assert (made.rules[0].models, made.rules[1].caller) == ({"chest", "*"}, config.LOCAL_CALLER)
    assert made.rules[1].roles == {"observe"}


def test_every_problem_is_reported_at_once_with_a_sentence_each(tmp_path: Path) -> None:
    text = TOML.replace('key = "file"', 'key = "no-such-file"') + (
        "[limits]\nqueue_rows_max = -5\nqueue_rows_min = 1\n"
        + PLAINTEXT + 'address = "10.0.0.1:80"\n'
        + ACCESS + 'roles = ["root"]\n'
    )  # fmt: skip
    assert sorted(problems(tmp_path, text)) == [
        "access[0].roles may hold predict, observe, audit, administer",
        "limits.queue_rows_max is -5, and must be from 1 to 1048576",
        "limits.queue_rows_min is not a known setting",
        "server.key: there is no file no-such-file",
        "server.plaintext.address must be a loopback address or unix: and an absolute path",
    ]


def test_files_may_be_missing_where_nothing_is_served(tmp_path: Path) -> None:
    """An operator of a running appliance needs neither the TLS key nor the passphrase."""
    text = TOML
    for name in ("key", "client_ca", "passphrase_file"):
        text = text.replace(f'{name} = "file"', f'{name} = "none"')
    assert read(tmp_path, text, to_serve=False).tls.key == tmp_path / "none"
    assert len(problems(tmp_path, text)) == 3


def test_two_places_for_one_passphrase_are_a_problem(tmp_path: Path) -> None:
    text = TOML.replace('passphrase_file = "file"', 'passphrase_file = "file"\npassphrase_credential = "words"')
    assert "keep one of the two" in problems(tmp_path, text)[0]


def test_site_directory_in_which_no_socket_can_be_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.raises(ConfigError, match="too long"):
        read(folder, TOML)


@pytest.mark.parametrize("address", [
    "127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "unix:/run/appliance.sock",
])  # fmt: skip
def test_plaintext_is_allowed_on_this_machine(tmp_path: Path, address: str) -> None:
    assert read(tmp_path, f'{TOML}{PLAINTEXT}address = "{address}"\n').plaintext_address == address


@pytest.mark.parametrize("address", [
    "0.0.0.0:80", "[::]:80", "localhost:80", "appliance.hospital.example:80", "192.168.1.5:80", "10.0.0.1:80", "8.8.8.8:80",
    "[2001:db8::1]:80", "[fe80::1]:80", "169.254.1.1:80", "127.0.0.1", "127.1:80", "2130706433:80", "0x7f.0.0.1:80", ":80",
    "unix:", "unix:relative.sock", "dns:127.0.0.1:80", "127.0.0.1:1,8.8.8.8:80", "127.0.0.1.evil.example:80",
    "[::ffff:8.8.8.8]:80",
])  # fmt: skip
def test_plaintext_is_refused_wherever_else_it_could_be_heard(tmp_path: Path, address: str) -> None:
    """A name too, since it could be made to resolve to anywhere."""
    found = problems(tmp_path, f'{TOML}{PLAINTEXT}address = "{address}"\n')
    assert found == ("server.plaintext.address must be a loopback address or unix: and an absolute path",)


def test_plaintext_without_roles_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, f'{TOML}[server.plaintext]\naddress = "127.0.0.1:80"\n') == (
        "server.plaintext.roles is missing",
    )


@pytest.mark.parametrize("address", [
    "host", "host:", ":80", "host:port", "host:65536", "host:99999", "ho st:80", "host:²", "host:٣", "unix:/x", "[::1:80",
    "", "host:" + "9" * 190, "http://host:80",
])  # fmt: skip
@pytest.mark.parametrize("table", ["server", "metrics"])
def test_address_that_nobody_could_listen_on_is_one_problem(tmp_path: Path, address: str, table: str) -> None:
    line = f'address = "{address}"'
    text = TOML.replace('address = "0.0.0.0:8443"', line) if table == "server" else f"{TOML}[metrics]\n{line}\n"
    found = problems(tmp_path, text)
    assert [problem.split(" ")[0] for problem in found] == [f"{table}.address"]


@pytest.mark.parametrize(("caller", "good"), [
    ("DNS:reader", True), ("URI:spiffe://hospital/pacs", True), ("EMAIL:a@b.example", True), ("IP:10.0.0.1", True),
    ("reader", False), ("CN:reader", False), ("DNS:", False), ("DNS:a b", False), ("DNS:a,b", False), ("*", False),
    ("LOCAL:plaintext", False), ("dns:reader", False),
])  # fmt: skip
def test_caller_is_a_typed_name_of_a_certificate(tmp_path: Path, caller: str, good: bool) -> None:
    """And nobody can write a rule for the plaintext listener by another way."""
    text = f'{TOML}[[access]]\ncaller = "{caller}"\nroles = ["predict"]\n'
    if good:
        assert read(tmp_path, text).rules[0].caller == caller
    else:
        assert problems(tmp_path, text) == ("access[0].caller is not of the form it should have",)


@pytest.mark.parametrize("line", [
    'roles = []', 'roles = ["predict", "root"]', 'roles = "predict"', 'roles = ["predict"]\nmodels = ["Chest"]',
    'roles = ["predict"]\nmodels = ["../x"]', 'roles = ["predict"]\nmodels = []', 'roles = ["predict"]\nmodel = ["x"]', '',
])  # fmt: skip
def test_rule_out_of_its_form_is_a_problem(tmp_path: Path, line: str) -> None:
    assert len(problems(tmp_path, f"{TOML}{ACCESS}{line}\n")) == 1


@pytest.mark.parametrize(("text", "sentence"), [
    ("[site", "not valid TOML"), ("a = 1\na = 2\n", "not valid TOML"), ("\ud800", "not valid TOML"),
])  # fmt: skip
def test_file_that_is_not_toml_is_one_problem(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "appliance.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=sentence):
        config.read(tmp_path / "appliance.toml")


def test_missing_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            config.read(path)


def test_empty_file_lacks_what_has_no_default(tmp_path: Path) -> None:
    found = problems(tmp_path, "")
    assert {"site is missing", "server is missing", "keys is missing", "site.name is missing"} <= set(found)


@pytest.mark.parametrize("setting", [
    "message_bytes_max", "queue_rows_max", "queue_bytes_max", "streams_max", "connection_age_s_max",
])  # fmt: skip
@pytest.mark.parametrize("value", ["-1", "0", "1.5", '"1"', "true", "99999999999999"])
def test_every_limit_has_limits(tmp_path: Path, setting: str, value: str) -> None:
    assert problems(tmp_path, f"{TOML}[limits]\n{setting} = {value}\n")[0].startswith(f"limits.{setting} is ")


def test_example_of_every_setting_is_valid(tmp_path: Path) -> None:
    """``deploy/appliance.toml``: the file says what exists, so it must be readable as it stands."""
    example = Path(__file__).parents[1] / "deploy" / "appliance.toml"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "passphrase").write_text("")
    (tmp_path / "appliance.toml").write_bytes(example.read_bytes())
    assert config.read(tmp_path / "appliance.toml", to_serve=False).site == tmp_path


def test_two_rules_for_one_caller_are_a_problem_not_a_surprise(tmp_path: Path) -> None:
    """Neither rule could be said to win."""
    twice = '[[access]]\ncaller = "DNS:ward-7"\nroles = ["{role}"]\n'
    text = (Path(__file__).resolve().parents[1] / "deploy" / "appliance.toml").read_text()
    path = tmp_path / "appliance.toml"
    path.write_text(text + twice.format(role="predict") + twice.format(role="administer"))
    with pytest.raises(ConfigError) as caught:
        config.read(path, to_serve=False)
    assert "access has two rules for one caller" in caught.value.problems

"""``python -m export trust``: what the vendor tells its sites, and with which keys."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from appliance.bundle.policy import Policy
from appliance.bundle.signature import ED25519, ML_DSA_65, SigningKey
from appliance.canonical import format_time, is_fingerprint
from appliance.errors import NotAdmitted
from export import keys
from export import trust as repository
from export.options import (
    FILE,
    FOLDER,
    genuine,
    key_option,
    passphrase_files,
    passphrases,
    pems,
    public,
    signers,
    utc_now,
)
from export.proposed import Proposed
from export.trust import Authority, Lifetimes, Repository

F = TypeVar("F", bound=Callable[..., Any])
REASON = click.option("--reason", required=True, help="1 to 200 characters that every site will be shown.")
DAYS = {
    "root": "until somebody with a root key has to sign again",
    "targets": "that what is published is good, if nothing newer is",
    "timestamp": "that a site goes by what it has, before it needs a newer medium",
}


def lifetimes(*roles: str) -> Callable[[F], F]:
    """How long what is signed now is good."""

    def add(command: F) -> F:
        for role in roles:
            default, range_ = getattr(Lifetimes(), role), click.IntRange(1, 36_500)
            option = click.option(
                f"--{role}-days", role, type=range_, default=default, show_default=True, help=f"Days {DAYS[role]}."
            )
            command = option(command)
        return command

    return add


@click.group("trust")
def group() -> None:
    """Make the trust repository, and publish in it."""


@group.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--vendor", required=True, help="Your name at the sites: 1 to 64 of a-z 0-9 -.")
@pems("--root", "roots", required=True, help="A root key's .pem: all who may change the keys.")
@click.option("--threshold", type=click.IntRange(1), default=1, show_default=True, help="How many of them have to sign.")
@pems("--release", required=True, help="A release key's .pem.")
@pems("--exporter", required=True, help="An exporter key's .pem.")
@pems("--licensing", required=True, help="A licensing key's .pem.")
@click.option("--require-ml-dsa", is_flag=True, help="Bundles and grants need an ML-DSA-65 signature too.")
@key_option("root and release")
@passphrase_files(required=False)
@lifetimes("timestamp", "targets", "root")
def init(
    directory: Path,
    vendor: str,
    roots: tuple[Path, ...],
    threshold: int,
    release: tuple[Path, ...],
    exporter: tuple[Path, ...],
    licensing: tuple[Path, ...],
    require_ml_dsa: bool,
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    **days: int,
) -> None:
    """Make a trust repository in DIRECTORY, with nothing published yet."""
    made = Repository(directory, Lifetimes(**days))
    authority = Authority(
        public(roots), threshold, public(release), public(exporter), public(licensing), _required(require_ml_dsa)
    )
    _say_missing(made, made.create(vendor, authority, _signers(signing_keys, passphrase_files), utc_now(), _show))


@group.command()
@click.argument("directory", type=FOLDER)
@click.option("--bundle", "bundles", type=FILE, multiple=True, help="A bundle that sites may use from now on.")
@key_option("release")
@passphrase_files(required=False)
@lifetimes("timestamp", "targets")
def publish(
    directory: Path,
    bundles: tuple[Path, ...],
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    **days: int,
) -> None:
    """Publish bundles, or say the same for longer. And whatever the root says of keys by now."""
    published = []

    def edit(policy: Policy) -> Policy:
        for path in bundles:
            found = genuine(path, policy)
            model = found.manifest.model
            policy = repository.with_bundle(policy, found.digest, model.id, model.version)
            published.append(f"{model.id} {model.version}, digest {found.digest}")
        return policy

    said = _publish(directory, edit, signing_keys, passphrase_files, days)
    for bundle in published:
        click.echo(f"published    {bundle}")
    click.echo(said)


@group.command()
@click.argument("directory", type=FOLDER)
@click.option("--digest", help="The digest of a bundle, as `publish` and `inspect` print it.")
@click.option("--signing-key", "signing_key", help="The id of an exporter or licensing key, as `keygen` printed it.")
@REASON
@key_option("release")
@passphrase_files(required=False)
@lifetimes("timestamp", "targets")
def revoke(
    directory: Path,
    digest: str | None,
    signing_key: str | None,
    reason: str,
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    **days: int,
) -> None:
    """Take back a bundle or a signing key. With a key goes all that no other key has signed."""
    if (digest is None) == (signing_key is None):
        raise click.UsageError("Give one of --digest and --signing-key.")

    def edit(policy: Policy) -> Policy:
        if digest is not None:
            return repository.without_bundle(policy, digest, reason)
        return repository.without_key(policy, str(signing_key), reason)

    click.echo(_publish(directory, edit, signing_keys, passphrase_files, days))


@group.command()
@click.argument("directory", type=FOLDER)
@pems("--root", "roots", help="The .pem of every root key that counts from now on; as before if left out.")
@click.option("--threshold", type=click.IntRange(1), help="How many of them have to sign; as before if left out.")
@pems("--release", help="The .pem of every release key that counts from now on; as before if left out.")
@pems("--exporter", help="The .pem of every exporter key that counts from now on; as before if left out.")
@pems("--licensing", help="The .pem of every licensing key that counts from now on; as before if left out.")
@click.option(
    "--require-ml-dsa/--no-require-ml-dsa",
    default=None,
    help="Whether bundles and grants need an ML-DSA-65 signature too from now on; as before if left out.",
)
@key_option("root")
@passphrase_files(required=False)
@click.option("--yes", is_flag=True, help="Sign what is shown, and ask nobody.")
@lifetimes("root")
def rotate(
    directory: Path,
    roots: tuple[Path, ...],
    threshold: int | None,
    release: tuple[Path, ...],
    exporter: tuple[Path, ...],
    licensing: tuple[Path, ...],
    require_ml_dsa: bool | None,
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    yes: bool,
    **days: int,
) -> None:
    """Change whose keys count, or only renew the root. Then publish, with a release key that counts."""
    made = Repository(directory, Lifetimes(**days))
    required = () if require_ml_dsa is None else _required(require_ml_dsa)
    authority = Authority(public(roots), threshold or 0, public(release), public(exporter), public(licensing), required)

    def agree(root: Proposed) -> None:
        _show(root)
        if not yes:
            click.confirm("Is this what is to count from now on?", abort=True)

    _say_missing(made, made.rotate(authority, _signers(signing_keys, passphrase_files), utc_now(), agree))


@group.command()
@click.argument("directory", type=FOLDER)
@key_option("root")
@passphrase_files(required=False)
@click.option("--fingerprint", help="What whoever proposed the root read out, its line `to sign`; asked for if left out.")
def sign(
    directory: Path, signing_keys: tuple[str, ...], passphrase_files: tuple[Path, ...], fingerprint: str | None
) -> None:
    """Sign a root that waits for your signature, once you have seen it: it says whose keys count at every site."""
    made = Repository(directory)

    def agree(root: Proposed) -> None:
        _show(root)
        if fingerprint is None:
            click.confirm("Has whoever proposed it read out this same line?", abort=True)
        elif not is_fingerprint(fingerprint, root.fingerprint):
            raise NotAdmitted(f"What is to be signed has the fingerprint {root.fingerprint}, which is not the one given.")

    _say_missing(made, made.sign(_signers(signing_keys, passphrase_files), agree))


def _publish(
    directory: Path,
    edit: Callable[[Policy], Policy],
    signing_keys: tuple[str, ...],
    passphrase_files: tuple[Path, ...],
    days: dict[str, int],
) -> str:
    made = Repository(directory, Lifetimes(**days))
    if made.is_said_by_replaced_keys:
        click.echo(
            "Until now it was signed by release keys that count no more: compare its bundles with your own list.", err=True
        )
    policy = made.publish(edit, _signers(signing_keys, passphrase_files), utc_now())
    revoked = sum(listing.revoked is not None for listing in policy.bundles.values())
    keys = f"{len(policy.exporter.keys)} exporter and {len(policy.licensing.keys)} licensing keys"
    return (
        f"{policy.vendor:12} {len(policy.bundles) - revoked} bundles, {revoked} revoked; {keys}\n"
        f"fresh until  {format_time(made.fresh_until)}"
    )


def _show(root: Proposed) -> None:
    for name, value in root.rows():
        click.echo(f"{name:12} {value}")


def _say_missing(made: Repository, missing: int) -> None:
    if missing:
        click.echo(f"The root still lacks signatures, at least {missing}: python -m export trust sign")
        click.echo("Read the line `to sign` to whoever signs next, over the telephone.")
        return
    click.echo(f"root         version {made.root_version}, signed")
    click.echo(f"fingerprint  {made.root_fingerprint}")
    click.echo("Read the fingerprint to every new site over the telephone.")


def _required(ml_dsa: bool) -> Sequence[str]:
    return (ED25519, ML_DSA_65) if ml_dsa else (ED25519,)


def _signers(specs: Sequence[str], paths: Sequence[Path]) -> list[SigningKey]:
    return signers(specs, passphrases(paths), *keys.TRUST_ROLES)

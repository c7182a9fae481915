"""The command line. Each command is a module, imported when it is used, so that the light client needs no runtime.

Exit codes, the same for every command:

====  =============================================================
0     done
1     a mistake of ours; please report it
2     the command line, a file, the configuration, a key or the site's state is wrong
3     a bundle, a grant or a trust repository is not good
4     the audit log is not good, or cannot be written
5     a call was refused, or the appliance, or who gets its log, could not be reached
6     a model that served could not be run any more
130   stopped by whoever was asked
====  =============================================================
"""

import importlib
import os
import sys
from typing import Any

import click

from appliance import errors

EXITS: tuple[tuple[type[errors.ApplianceError], int], ...] = (
    (errors.ConfigError, 2),
    (errors.KeyUnavailable, 2),
    (errors.StateError, 2),
    (errors.BundleError, 3),
    (errors.AuditLogError, 4),
    (errors.AuditUnavailable, 4),
    (errors.EngineFailed, 6),
    (errors.CallFailed, 5),
    (errors.FeedFailed, 5),
    (errors.RequestError, 5),
)

_COMMANDS = ("init", "enroll", "trust", "models", "serve", "top", "predict", "check", "state", "bundle", "audit", "demo")


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = importlib.import_module(f"appliance.cli.{name}").command
        assert isinstance(command, click.Command)  # noqa: S101
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="appliance")
def group() -> None:
    """On-premise inference: signed, encrypted models; an audit record for every call; no data off-site.

    \b
    Exit codes: 0 done · 1 our mistake · 2 command line, file, configuration, keys or state
                3 bundle, grant or trust not good · 4 audit log not good · 5 call refused or appliance not reached
                6 a model could not be run any more
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits. Our own errors become a sentence on stderr and their exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else every broken handshake of a stranger is a line on stderr
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")  # fewer threads for a call: docs/decisions/0027
    try:
        group.main(arguments, prog_name="appliance", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("appliance: stopped; nothing was changed", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.ConfigError as error:
        for problem in error.problems:
            click.echo(f"appliance: {problem}", err=True)
        sys.exit(2)
    except errors.ApplianceError as error:
        click.echo(f"appliance: {error}", err=True)
        sys.exit(exit_code(error))
    except OSError as error:
        click.echo(f"appliance: {error.filename or 'this machine'}: {error.strerror or error}", err=True)
        sys.exit(2)


def exit_code(error: errors.ApplianceError) -> int:
    """The same whether this process has refused, or a running appliance that it asked."""
    kind = type(error)
    if isinstance(error, errors.CallFailed) and error.reason:
        kind = errors.with_code(error.reason)
    return next((code for known, code in EXITS if issubclass(kind, known)), 1)


def echo_json(value: Any) -> None:
    """One JSON document on stdout, for scripts; also on a terminal it is what it seems.

    JSON escapes C0 control characters alone. Others that do not print, such as C1 and bidirectional controls, can stand in
    its strings only, so each may be escaped where it stands.
    """
    import json

    document = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in document))

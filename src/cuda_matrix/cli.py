"""Owns the command line as a whole: which verbs there are, and how an error becomes words and an exit code.

Must not know what a verb does: each lives in `commands/` and is imported only when it is called, so that
`--help` costs little more than the interpreter.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import signal
from typing import TYPE_CHECKING

import click

from cuda_matrix.adapters.signals import INTERRUPTING
from cuda_matrix.errors import ConfigurationError, CudaMatrixError, ExitCode, Interrupted
from cuda_matrix.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

# Verb → what `--help` says of it; a test compares this with each command's own short help.
VERBS = {
    "init": "Write a commented starter configuration and workflow.",
    "validate": "Check the configuration; every error at once.",
    "plan": "Show which cells run, in which lane, and which do not.",
    "run": "Run cells: launch each image, check and measure inside it.",
    "report": "Turn results into the compatibility and performance table.",
    "gate": "Say whether the results allow a release; exit 0 or 1.",
    "publish": "Put the report on GitHub: summary, check run, commit, comment.",
    "promote": "Give release tags to exactly the digests that passed.",
    "predict": "Say whether an image will run on a card, before any pull.",
    "recommend": "Say which image to use on a card and driver; exit 0 or 1.",
    "doctor": "Look this machine over, and one image on it: what is wrong?",
    "diagnose": "Name the cause of a failure from its log, and the fix.",
    "demo": "Run the whole pipeline on a simulated fleet and on this machine.",
    "schema": "Print the JSON Schema of a configuration or a result.",
}

# A full or broken disk is nobody's wrong argument.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_BROKEN_PIPE = 128 + signal.SIGPIPE  # as a shell reports it


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for (click.palletsprojects.com, "Lazily loading")."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Verbs, in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"cuda_matrix.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb where there is none of this name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            if not near:
                raise
            msg = f"{error.message} Did you mean {near[0]!r}?"
            raise click.UsageError(msg, ctx=error.ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cuda-matrix", message="%(prog)s %(version)s")
def cuda_matrix() -> None:
    """Which PyTorch-CUDA image works on which card, how fast, and if not, why and what to do.

    Exit codes: 0 good · 1 the gate says no · 2 usage or configuration · 3 infrastructure (Docker, registry) ·
    4 a bug of ours · 130 interrupted.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command; print errors once; return the exit code."""
    _install_signal_handlers()
    try:
        code = cuda_matrix.main(args=list(arguments), prog_name="cuda-matrix", standalone_mode=False)
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        return _failed(error, arguments)
    except SystemExit:
        # click's answer to a reader (`| head`) that has gone. Not 0: nobody knows what the verb would have said.
        return _BROKEN_PIPE
    return code if isinstance(code, int) else ExitCode.GOOD


def _failed(error: BaseException, arguments: Sequence[str]) -> ExitCode:
    """Say what happened, once; the exit code that it has."""
    code = ExitCode.BUG
    if isinstance(error, click.ClickException):
        from cuda_matrix.report.escape import console_text

        shown = io.StringIO()
        error.show(file=shown)
        for line in shown.getvalue().splitlines():  # it may repeat what a workflow's author or an event wrote
            click.echo(console_text(line), err=True)
        code = ExitCode.CONFIGURATION
    elif isinstance(error, Interrupted | KeyboardInterrupt | click.Abort):
        click.echo(f"interrupted{f': {error}' if str(error) else ''}", err=True)
        code = ExitCode.INTERRUPTED
    elif isinstance(error, CudaMatrixError):
        _print_error(error)
        code = error.exit_code
    elif isinstance(error, OSError) and (error.filename is not None or error.errno in _MACHINE_ERRORS):
        code = _os_error(error)
    else:
        _report_bug(error, arguments)
    return code


def _os_error(error: OSError) -> ExitCode:
    """A file or folder that the user named and the system refuses."""
    click.echo(f"error: {error.filename or 'writing'}: {error.strerror}", err=True)
    if error.errno in _MACHINE_ERRORS:
        click.echo("hint: results that were written already are kept", err=True)
        return ExitCode.INFRASTRUCTURE
    click.echo("hint: choose another file or folder, or change its permissions", err=True)
    return ExitCode.CONFIGURATION


def _report_bug(error: BaseException, arguments: Sequence[str]) -> None:
    from cuda_matrix.bug_report import write_bug_report

    path = write_bug_report(error, arguments)
    click.echo(f"error: this is a bug of cuda-matrix: {type(error).__name__}: {str(error)!r:.300}", err=True)
    click.echo(f"  please paste {path} into an issue", err=True)


def _install_signal_handlers() -> None:
    """Ctrl-C, SIGTERM and SIGHUP raise once, so that `with` blocks clean up; later ones wait for that."""

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in INTERRUPTING:
            signal.signal(each, lambda *_: click.echo("still cleaning up …", err=True))
        msg = signal.Signals(number).name
        raise Interrupted(msg)

    for each in INTERRUPTING:
        signal.signal(each, handle)


def _print_error(error: CudaMatrixError) -> None:
    from cuda_matrix.report.escape import console_text  # what is wrong may come out of a file or a registry

    click.echo(f"error: {console_text(str(error))}", err=True)
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            click.echo(f"  {console_text(str(problem))}", err=True)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            from cuda_matrix.adapters.actions_env import error_command

            for problem in error.problems:
                click.echo(error_command(problem), err=True)
    if error.hint:
        click.echo(f"hint: {console_text(error.hint)}", err=True)

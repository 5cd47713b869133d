"""`certmix`: commands are imported only when they run."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import traceback
import warnings
from typing import Any, NoReturn

import click

from certmix import guard, signals, streams
from certmix.errors import CertmixError, CertmixWarning, Interrupted, RunError
from certmix.kernels import COMMAND
from certmix.memory import keep_freed_memory

COMMANDS = {
    "certify": ("certify", "Certify a mixed classifier: the certified-accuracy table."),
    "tune": ("tune", "Choose gate, g's temperature and alpha on inputs that are set aside."),
    "recertify": (
        "stored",
        "Another alpha, certificate or failure probability without sampling; published logs too.",
    ),
    "show": ("stored", "The table of a run again, in any format."),
    "merge": ("certify", "Put the shards of a run together again."),
    "plan": ("certify", "Hours, cost and size of a run before it is made."),
    "audit": ("stored", "What to know before trusting a log or a run."),
    "report": ("stored", "One HTML page of a run, or of several compared; no network needed."),
    "falsify": ("verify", "Attack a run's certificates inside their balls: wrong ones can be found."),
    "trade-off": ("stored", "Clean against certified accuracy over alpha, from stored counts or logs."),
    "compare": ("stored", "Do two runs differ by more than chance? Paired tests on the same inputs."),
    "attack": ("studies", "Attack a classifier or a mix: FGSM, PGD, APGD, Square, AutoAttack."),
    "mix-sweep": ("studies", "Accuracy of the mix over alpha, clean and attacked."),
    "compare-trust": ("studies", "Clean against attacked accuracy for every trust term."),
    "confidence": ("studies", "How sure both classifiers are: is the robust one suited to mixing?"),
    "lipschitz": ("studies", "Estimate local Lipschitz constants by search, or try a claimed one."),
    "nuts": ("nuts", "Mix nonlinearly (MixedNUTS): fit, evaluate."),
    "verify": ("verify", "Does a guarantee hold, is a run what it says?"),
    "evidence": ("evidence", "Evidence for a safety case: statement, bill of materials, argument, proof."),
    "guarantee": ("verify", "Write a guarantee from a run, or check one."),
    "reproduce": ("certify", "Run a finished run again and show what differs."),
    "selftest": ("selftest", "Hold the papers' guarantees against this installation, in seconds."),
    "train": ("train", "Train a standard, noise-trained or adversarially trained model."),
    "models": ("train", "List the shipped models, or show the card of one."),
}
"""Command -> the module where it lives, under its own name, and one line of help."""

RESUMED = (
    "certify", "attack", "mix-sweep", "compare-trust", "confidence", "lipschitz", "nuts fit", "nuts evaluate",
    "tune", "train", "verify", "evidence",
)  # fmt: skip
"""Commands that keep what they made so far, and go on with it when they are repeated."""


PATIENCE = 10
"""Seconds that threads, and what is to be done at the end of a process, have after a command."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
        command = module.command if name == "selftest" else getattr(module, name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = difflib.get_close_matches(args[0], COMMANDS, n=3)
        if near and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with guard.failing_closed():
                return super().invoke(ctx)
        except (CertmixError, click.ClickException, click.exceptions.Exit, click.Abort, KeyboardInterrupt):
            raise
        except Exception as error:  # a mistake of certmix's: whoever mends it needs the traceback
            if isinstance(error, BrokenPipeError):
                raise
            traceback.print_exception(error)
            raise RunError(guard.fault(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Start here: certmix certify --sigma 0.5 --alpha 0.76",
)
@click.version_option(package_name="certmix", message="%(prog)s %(version)s")
def cli() -> None:
    """Prove how far an input can move before a classifier changes its mind.

    certmix certifies mixtures log((1-alpha) g + alpha h) of an accurate
    classifier g and a robust one h, smoothed by Gaussian noise.
    """


def program() -> NoReturn:
    """Be the installed command, whose process ends with it, whatever models have left behind."""
    show = warnings.showwarning

    def tell(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, CertmixWarning):
            click.echo(f"Warning: {message}", err=True)
        else:
            show(message, category, *where, **more)

    warnings.showwarning = tell
    code: Any = 2
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:  # one that came in the last moment
        code = signals.exit_code()
    except BaseException:
        traceback.print_exc()
    code = code if isinstance(code, int) else 2
    guard.end_within(PATIENCE, code)
    sys.exit(code)


def main() -> None:
    """Run the command line; errors that users can mend are one line, exit code 2."""
    with streams.safe(), signals.caught():
        _main()


def _main() -> None:
    # torch's threads spin while they wait: on a machine that is busy otherwise, six times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ[COMMAND] = "1"
    keep_freed_memory()
    try:
        with guard.kept_stdout():
            try:
                code = cli.main(prog_name="certmix", standalone_mode=False)
            finally:
                guard.unwatch()
    except CertmixError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.ctx is not None:
            meant = error.option_name.replace("images", "inputs")
            if any(meant in known.opts for known in error.ctx.command.params):
                told = f"No such option {error.option_name!r}. Did you mean {meant!r}?"
                error = click.UsageError(told, error.ctx)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        stopped = error if isinstance(error, Interrupted) else error.__cause__
        _say_interrupted(str(stopped) if isinstance(stopped, Interrupted) else "")
        sys.exit(signals.exit_code())
    if code == 130:
        _say_interrupted("")
        code = signals.exit_code()
    sys.exit(code if isinstance(code, int) else 0)


def _say_interrupted(reason: str) -> None:
    """Say in one line whether repeating the command goes on."""
    given = " ".join([word for word in sys.argv[1:] if not word.startswith("-")][:2])
    resumed = any(given == name or given.startswith(f"{name} ") for name in RESUMED)
    how = ""
    if resumed and "--fresh" in sys.argv:
        how = "; repeat the command without --fresh to go on, or with it if an earlier run still lies there"
    elif resumed:
        how = "; repeat the command to go on where it stopped"
    told, by = reason or "interrupted", signals.received()
    name = "" if by == signal.SIGINT else f" ({by.name})"
    click.echo(f"{told[0].upper()}{told[1:]}{name}{how}.", err=True)

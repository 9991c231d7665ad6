"""The command `whichlora`, whose subcommands are imported when they are called: `python -m whichlora` is the same."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from whichlora import command_line
from whichlora.command_line import PROGRAM

COMMANDS = {
    "run": ("whichlora.run.command", "Train one adapter, score it, and track it in MLflow."),
    "experiment": ("whichlora.experiment.command", "Do the runs of a grid that a YAML file describes."),
    "tune": ("tuning.tune", "Search hyperparameters of variants with equal budgets."),
    "probe": ("whichlora.probing.command", "Measure what the layers of a model represent."),
    "analyze": ("analysis.analyze", "Write a report with statistics and figures about experiments."),
    "variants": ("whichlora.variants.command", "List the adapter methods with their hyperparameters."),
    "studies": ("tuning.study", "List studies of tune, or stop one."),
    "archive": ("whichlora.archive", "Put results into one file, or unpack them elsewhere."),
    "database": ("whichlora.database", "Create the tables of the tracking database."),
}
"""Module and short help by name. A module has a `COMMAND`, which completion asks, and a `main`."""
COMPLETE = "_WHICHLORA_COMPLETE"
ABOUT = f"""Compare LoRA variants in multilingual fine-tuning.

Each command has its own --help. Completion of commands, options and their values, for the running shell:

\b
  eval "$({COMPLETE}=bash_source {PROGRAM})"         # bash; in ~/.bashrc for good
  eval "$({COMPLETE}=zsh_source {PROGRAM})"          # zsh; in ~/.zshrc
  {COMPLETE}=fish_source {PROGRAM} | source          # fish; in ~/.config/fish/completions/{PROGRAM}.fish
"""
EXAMPLES = (
    f"{PROGRAM} run --variant vera --language sw",
    f"{PROGRAM} tune --variant lora,dora --trials 20",
    f"{PROGRAM} analyze --experiment {PROGRAM}",
)


class _Deferred(click.Command):
    """A subcommand that reads its own arguments, with the parser of its module."""

    def __init__(self, name: str) -> None:
        super().__init__(name, add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the arguments as they are."""
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> tuple[str, list[str]]:
        """Return the name and the arguments."""
        return str(self.name), ctx.args


class _Commands(command_line.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand; only completion needs its options, and so its module."""
        if cmd_name not in COMMANDS:
            return None
        if not ctx.resilient_parsing:
            return _Deferred(cmd_name)
        try:
            command: click.Command = _module(cmd_name).COMMAND
        except click.ClickException:
            return None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of the subcommands with their short help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        command_line.write_examples(formatter, EXAMPLES)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands, or the options, that begin so."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]


def _module(name: str) -> Any:
    """Import the module of a subcommand.

    Raises:
        ClickException: its package, which is above this one and need not be there, is not installed.
    """
    module, _ = COMMANDS[name]
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        where = "install whichlora with pip, or work in the folder of its repository"
        raise click.ClickException(f"{name} needs the package {package}, which is not installed: {where}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Call a subcommand and return its exit status: 2 for what is no command, or for its bad options."""
    group = _Commands(PROGRAM, ABOUT)
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(group, {}, PROGRAM, COMPLETE, instruction)
    name, rest = command_line.call(group, PROGRAM, arguments)
    try:
        module = _module(name)
    except click.ClickException as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return int(module.main(rest))


if __name__ == "__main__":
    sys.exit(main())

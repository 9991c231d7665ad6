"""The command `whichlora`, also `python -m whichlora`: imports a subcommand only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem, shell_complete

from whichlora import command_line
from whichlora.command_line import PROGRAM, exit_with

COMMANDS = {
    "run": ("whichlora.run.command", "Train one adapter, score it, and track it in MLflow."),
    "experiment": ("whichlora.experiment.command", "Run a grid of runs that a YAML file describes."),
    "tune": ("tuning.tune", "Search hyperparameters of variants with equal budgets."),
    "compare": ("comparing.compare", "Compare methods in rounds of seeds, and say which to use."),
    "probe": ("whichlora.probing.command", "Measure what the layers of a model represent."),
    "analyze": ("analysis.analyze", "Write a report with statistics and figures about experiments."),
    "predict": ("whichlora.predict.command", "Predict the rows of a table with a trained model."),
    "export": ("whichlora.export.command", "Write the adapter of a run, or a merged model, to a folder or the hub."),
    "data": ("whichlora.data_check", "Check the data of a task before a first run."),
    "runs": ("whichlora.run_table", "List the runs of the tracking database with their scores."),
    "diff": ("analysis.diff", "Compare two runs: specs, scores, and answers with McNemar's test."),
    "variants": ("whichlora.variants.command", "List the adapter methods with their hyperparameters."),
    "studies": ("tuning.study", "List studies of tune, or stop one."),
    "archive": ("whichlora.archive", "Pack results into one file, unpack them, or adapt them to a moved folder."),
    "cache": ("whichlora.cache", "List what was downloaded or left unfinished, or remove it."),
    "database": ("whichlora.database", "Create the tables of the tracking database."),
}
"""Module and short help of each subcommand; the module has a `main`, and a `COMMAND` for shell completion."""
COMPLETE = "_WHICHLORA_COMPLETE"
ABOUT = f"""Compare LoRA variants in multilingual fine-tuning.

Each command has its own --help. To complete commands, options and values in the current shell:

\b
  eval "$({COMPLETE}=bash_source {PROGRAM})"         # bash; permanently in ~/.bashrc
  eval "$({COMPLETE}=zsh_source {PROGRAM})"          # zsh; in ~/.zshrc
  {COMPLETE}=fish_source {PROGRAM} | source          # fish; in ~/.config/fish/completions/{PROGRAM}.fish
"""
EXAMPLES = (
    f"{PROGRAM} run --variant vera --language sw",
    f"{PROGRAM} tune --variant lora,dora --trials 20",
    f"{PROGRAM} analyze --experiment {PROGRAM}",
)


class _Deferred(click.Command):
    """A placeholder for a subcommand, whose arguments are parsed by its own module."""

    def __init__(self, name: str) -> None:
        super().__init__(name, add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments unparsed."""
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> tuple[str, list[str]]:
        """Return the name and the unparsed arguments."""
        return str(self.name), ctx.args


class _Commands(command_line.Group):
    """The subcommands of `whichlora`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand; its module is imported only for shell completion, which needs the options."""
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
        """Write the subcommands with their short help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        command_line.write_examples(formatter, EXAMPLES)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands or options that start with `incomplete`."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]


def _module(name: str) -> Any:
    """Import the module of a subcommand.

    Raises:
        ClickException: the package of the subcommand is not installed.
    """
    module, _ = COMMANDS[name]
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        remedy = "install whichlora with pip, or run the command in the root of its repository"
        raise click.ClickException(f"{name} needs the package {package}, which is not installed: {remedy}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Call a subcommand and return its exit status: 2 for an unknown command or bad options."""
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


def script() -> None:
    """Run as the console script `whichlora`."""
    exit_with(main)


if __name__ == "__main__":
    exit_with(main)

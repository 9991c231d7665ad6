"""Defines command lines with click: grouped options, examples, suggestions for misspelt names, and completion."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

import click
from click.shell_completion import CompletionItem

from whichlora import __version__, cores, termination
from whichlora.errors import check_choice, did_you_mean, printable
from whichlora.masking import mask_output

PROGRAM = "whichlora"
Options = Mapping[str, tuple[str | None, str]]
"""Default and help text by option name; an option with the default None is required."""
Groups = Mapping[str, Sequence[str]]
"""Option names by the title under which `--help` lists them."""
FILE, FOLDER = ("<file>",), ("<folder>",)
"""Choices of an option for which the shell completes the names of files or folders; FILE may follow other choices."""
BOOLEANS = ("true", "false")
_WIDTH = {"max_content_width": 110}
_shown: set[str] = set()


class Command(click.Command):
    """A command whose option values are text: click splits the command line, the caller parses the values.

    Args:
        name: the name of the command.
        about: what the command does; the first sentence is the short help.
        options: default and help text by option name.
        groups: option names by title for `--help`; by default all options are under one title.
        choices: values that the shell completes, by name.
        examples: command lines for `--help`.
        positional: choices by name of the positional arguments, in order; a last one `name...` takes any number.
        program: how `--help` shows the call of the command; by default `whichlora` and the name.
    """

    def __init__(
        self,
        name: str,
        about: str,
        options: Options,
        *,
        groups: Groups | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        positional: Mapping[str, Sequence[str]] | None = None,
        program: str | None = None,
    ) -> None:
        completions = choices or {}
        params: list[click.Parameter] = [
            _argument(word, completed) for word, completed in (positional or {}).items()
        ] + [_option(option, *entry, completions.get(option)) for option, entry in options.items()]
        super().__init__(
            name, help=about, params=[*params, _version()], callback=self._return_values, context_settings=dict(_WIDTH)
        )
        self.program = program or f"{PROGRAM} {name}"
        self.groups = groups or {"Options": list(options)}
        self.examples = examples

    def read(self, arguments: Sequence[str] | None) -> dict[str, Any]:
        """Parse a command line, by default that of this process, and return the unparsed values by name.

        Raises:
            SystemExit: with status 0 after `--help` and `--version`, with status 2 for unknown or missing options.
        """
        _, values = call(self, self.program, arguments)
        return dict(values)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        records = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx) if isinstance(p, click.Option)}
        sections = {title: [records.pop(name) for name in names] for title, names in self.groups.items()}
        for title, rows in {**sections, "Other": list(records.values())}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([row for row in rows if row is not None])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)

    def _return_values(self, **values: Any) -> tuple[str, dict[str, Any]]:
        return str(self.name), values


class Group(click.Group):
    """A command with subcommands; the error for an unknown subcommand suggests the nearest name."""

    def __init__(self, name: str, about: str, commands: Sequence[click.Command] = ()) -> None:
        super().__init__(
            name,
            help=about,
            commands=commands,
            params=[_version()],
            no_args_is_help=False,
            context_settings=dict(_WIDTH),
        )
        self.program = f"{PROGRAM} {name}"

    def read(self, arguments: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
        """Return the name of the subcommand and its unparsed values; see `Command.read`."""
        name, values = call(self, self.program, arguments)
        return str(name), dict(values)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's options; without arguments, fail with the names of the subcommands."""
        if not args and not ctx.resilient_parsing:
            ctx.fail(f"a command is missing; commands are {', '.join(self.list_commands(ctx))}")
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a subcommand, or fail with the nearest name."""
        names = self.list_commands(ctx)
        if args[0] not in names and not ctx.resilient_parsing:
            ctx.fail(f"no command {args[0]!r}; commands are {', '.join(names)}{did_you_mean(args[0], names)}")
        return super().resolve_command(ctx, args)


def call(command: click.Command, program: str, arguments: Sequence[str] | None) -> Any:
    """Parse a command line and return the result of the command's callback.

    click's `main` is not used because it turns Ctrl-C during the work into an exit status.

    Raises:
        SystemExit: with status 0 after `--help` and `--version`, with status 2 for unknown or missing options or
            commands.
    """
    try:
        with command.make_context(program, list(sys.argv[1:] if arguments is None else arguments)) as context:
            return command.invoke(context)
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.ClickException as error:
        print(f"error: {printable(_message(error))}", file=sys.stderr)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            print(f"See {error.ctx.command_path} --help.", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def parse_boolean(option: str, text: str) -> bool:
    """Parse an option as true or false, in capital or small letters.

    Raises:
        OptionError: the text is neither.
    """
    if text.lower() not in BOOLEANS:
        check_choice(option, text, BOOLEANS)  # which names the text as it was given
    return text.lower() == BOOLEANS[0]


def escape_what_cannot_be_shown() -> None:
    """Print characters that the encoding of the terminal lacks as escapes, instead of failing."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its status, or with 128 and the number of the signal that ended it.

    Passwords are masked in all that it prints, and the threads of OpenMP are set up, so torch must not be imported yet.

    If the reader of the output is gone, as in `whichlora variants | head`, exit quietly with the status of a process
    killed by SIGPIPE.
    """
    mask_output()
    cores.configure()
    warnings.formatwarning = _format_warning
    warnings.showwarning = _show_once
    termination.install()
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:  # a library may have replaced `Terminated` by it
        if not termination.requested():
            raise
        status = termination.end()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the pipe again at exit
        status = 128 + signal.SIGPIPE
    sys.exit(status)


def _show_once(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning unless it has been printed; Python forgets which were whenever a library changes its filters."""
    text = _format_warning(message, category, filename, lineno, line)
    if text not in _shown:
        _shown.add(text)
        print(text, end="", file=file or sys.stderr, flush=True)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return a warning for users in one line; those of libraries for developers keep the place in the code."""
    if category is UserWarning:
        return f"warning: {printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write the examples of a help text, each on one line that is not wrapped."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def _message(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        names = [name for param in error.ctx.command.get_params(error.ctx) for name in param.opts if name[0] == "-"]
        return f"no option {error.option_name}{did_you_mean(error.option_name, names)}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _option(name: str, default: str | None, text: str, choices: Sequence[str] | None) -> click.Option:
    requirement: dict[str, Any] = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.Option(
        [f"--{name}"],
        **requirement,
        type=str,
        metavar="VALUE",
        help=text,
        shell_complete=_completion(choices),
    )


def _argument(word: str, choices: Sequence[str]) -> click.Argument:
    name = word.removesuffix("...")
    several = name != word
    return click.Argument(
        [name],
        type=str,
        nargs=-1 if several else 1,
        required=not several,
        metavar=f"[{name.upper()}]..." if several else name.upper(),
        shell_complete=_completion(choices),
    )


def _completion(
    choices: Sequence[str] | None,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]] | None:
    if choices is None:
        return None
    if choices in (FILE, FOLDER):
        kind = "file" if choices is FILE else "dir"
        return lambda context, parameter, prefix: [CompletionItem(prefix, type=kind)]

    def complete(context: click.Context, parameter: click.Parameter, prefix: str) -> list[CompletionItem]:
        words = [CompletionItem(value) for value in choices if value not in FILE and value.startswith(prefix)]
        # The shell completes files where no word fits.
        return [CompletionItem(prefix, type="file"), *words] if FILE[0] in choices else words

    return complete


def _version() -> click.Option:
    def show(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            click.echo(f"{PROGRAM} {__version__}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version and exit."
    )

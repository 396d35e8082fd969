"""The `flowferry` command: a root that loads each group of commands only when it is used.

A group whose imports fail (the native module is missing or was built for another Python) costs one
clear line when it is called, and nothing when another group is.
"""

import importlib
import importlib.util
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Entry:
    """Where a command lives, and the line that `flowferry --help` shows without loading it."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "demo": Entry("demo", "demo", "Live flows move between running functions: verdict, picture."),
    "testbed": Entry("testbed", "testbed", "Hosts, switches and instances on this machine."),
    "controller": Entry("controller", "controller", "The controller: its daemon and its status."),
    "move": Entry("handovers", "move", "Move live flows to another instance."),
    "handovers": Entry("handovers", "handovers", "Moves under way and over."),
    "rules": Entry("rules", "rules", "Which flows go through which instance."),
    "instances": Entry("instances", "instances", "The running copies of the function."),
    "flows": Entry("flows", "flows", "Who serves which flow."),
    "hsl": Entry("hsl", "hsl", "The handover support layer of an instance."),
    "probe": Entry("probe", "probe", "Traffic that proves loss, order, duplication and delay."),
    "state": Entry("state", "state", "Local and global state of function instances."),
    "bench": Entry("bench", "bench", "An experiment of the papers, or one of ours."),
    "doctor": Entry("doctor", "doctor", "Check what this machine needs to run all this."),
}


class LazyGroup(click.Group):
    """A group that imports `flowferry.cli.<module>` when a command of it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands that this installation has."""
        return [name for name, entry in COMMANDS.items() if _installed(entry)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. A failing import ends the program with one line and status 1."""
        entry = COMMANDS.get(cmd_name)
        if entry is None or not _installed(entry):
            return None
        try:
            module = importlib.import_module(f"{__name__}.{entry.module}")
        except ImportError as error:
            raise click.ClickException(
                f"'{cmd_name}' cannot be loaded ({error}); run 'make setup'"
            ) from None
        command = getattr(module, entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])


def _installed(entry: Entry) -> bool:
    return importlib.util.find_spec(f"{__name__}.{entry.module}") is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flowferry", prog_name="flowferry")
def main() -> None:
    """Carry live flows and their state from one network function instance to another.

    Exit status: 0 done, 1 failed (one line says what, and how to mend it), 2 wrong usage.
    """

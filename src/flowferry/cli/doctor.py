"""`flowferry doctor`: what this machine needs, what it has, what to do about the rest."""

import json

import click
from rich.console import Console
from rich.table import Table

from flowferry.testbed import preflight


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print only the first need that is not met.")
def doctor(as_json: bool, quiet: bool) -> None:
    """Check what this machine needs to run all this; exit status 1 if a need is not met."""
    results = preflight.check_all()
    failed = [r for r in results if r.needed and r.problem is not None]
    if as_json:
        checks = [
            {"name": r.name, "problem": r.problem, "remedy": r.remedy, "needed": r.needed}
            for r in results
        ]
        click.echo(json.dumps({"ok": not failed, "checks": checks}))
    elif not quiet:
        table = Table("check", "result", "remedy", box=None, pad_edge=False)
        for r in results:
            bad = "[red]failed[/]" if r.needed else "[yellow]absent[/]"
            state = "[green]ok[/]" if r.problem is None else f"{bad}: {r.problem}"
            table.add_row(r.name, state, "" if r.problem is None else r.remedy)
        Console().print(table)
    if failed:
        raise click.ClickException(f"{failed[0].problem}; {failed[0].remedy}")

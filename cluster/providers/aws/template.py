"""Renew the start scripts in cluster/cloudformation.yaml: python cluster/providers/aws/template.py

The template must be one file, so that it can be given to AWS's console as it is. It therefore holds
a copy of what is in `start/`, which this script renews.
"""

import re
import textwrap

import click

from cluster.jobs import ROOT
from cluster.providers.scripts import joined

TEMPLATE = ROOT / "cluster" / "cloudformation.yaml"
BLOCK = r"(?ms)^( *)# {role}: from start/\n.*?^ *# {role}: end\n"


def renewed(text: str) -> str:
    """A template with the start scripts of today, between the lines that mark their place."""
    for role in ("head", "worker"):

        def block(place: re.Match[str], role: str = role) -> str:
            scripts = joined(("aws_stack", "aws", "common", role))
            return textwrap.indent(f"# {role}: from start/\n{scripts}# {role}: end\n", place[1])

        text, count = re.subn(BLOCK.format(role=role), block, text)
        if count != 1:
            raise click.ClickException(f"{TEMPLATE} marks {count} places for the {role}'s script")
    return text


@click.command()
def cli() -> None:
    """Renew the copy of the start scripts in the template."""
    TEMPLATE.write_text(renewed(TEMPLATE.read_text()))
    click.echo(f"wrote {TEMPLATE}")


if __name__ == "__main__":
    cli()

"""Command lines whose every complaint is one line."""

from typing import Any

import click


class OneLineGroup(click.Group):
    """Commands that tell what is wrong without repeating how they are used."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.ClickException(" ".join(error.format_message().split())) from error

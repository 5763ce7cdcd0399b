"""The command `xzepr schema`: prints the GraphQL schema generated from the code."""

import typer

from xzepr.api.graphql.schema import sdl


def schema() -> None:
    """Print the GraphQL schema (SDL)."""
    typer.echo(sdl(), nl=False)

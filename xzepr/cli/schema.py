"""`xzepr schema`: the GraphQL contract, printed from the code."""

import typer

from xzepr.api.graphql.schema import printed


def schema() -> None:
    """Print the GraphQL schema (SDL)."""
    typer.echo(printed(), nl=False)

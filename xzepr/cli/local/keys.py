"""The command `xzepr keys init`: creates the RSA key pair that signs access tokens."""

from pathlib import Path
from typing import Annotated

import typer

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.core.errors import CannotStart
from xzepr.infra.crypto import create_key_pair
from xzepr.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _keys() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it so that `init` is a subcommand
    """Create the keys that sign access tokens."""


@app.command()
def init(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    private: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File for the private key (setting: jwt.private_key_path).")
    ] = None,
    public: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File for the public key (setting: jwt.public_key_path).")
    ] = None,
) -> None:
    """Create a key pair and print the environment variables that select it. Existing keys are never overwritten,
    because tokens depend on them."""
    flags = {"jwt.private_key_path": private, "jwt.public_key_path": public}
    private_path, public_path = _paths(load_settings(config, data_dir, flags).settings)
    for path in (private_path, public_path):
        if path.exists():
            raise CannotStart(_exists_message(path))
    try:
        created = create_key_pair(private_path, public_path)
    except OSError as error:
        raise CannotStart(f"the keys cannot be written to {error.filename}: {error.strerror}") from error
    if not created:
        raise CannotStart(_exists_message(private_path))
    typer.echo(f"XZEPR__JWT__PRIVATE_KEY_PATH={private_path.absolute()}")
    typer.echo(f"XZEPR__JWT__PUBLIC_KEY_PATH={public_path.absolute()}")


def _paths(settings: Settings) -> tuple[Path, Path]:
    """Returns the files named in the settings, or else those in the data folder, where a hub creates its keys."""
    folder = settings.data_dir / "keys"
    return (
        settings.jwt.private_key_path or folder / "private.pem",
        settings.jwt.public_key_path or folder / "public.pem",
    )


def _exists_message(path: Path) -> str:
    return f"{path} exists and is not overwritten: move it, or name other files with --private and --public"

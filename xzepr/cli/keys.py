"""`xzepr keys init`: the RSA key pair with which the hub signs access tokens."""

from pathlib import Path
from typing import Annotated

import typer

from xzepr.cli.options import ConfigFile, DataDir, load_settings
from xzepr.core.errors import CannotStart
from xzepr.infra.crypto import create_key_pair
from xzepr.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _keys() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it; it makes `init` a word of its own
    """Make the keys that sign access tokens."""


@app.command()
def init(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    private: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the private key goes.")] = None,
    public: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the public key goes.")] = None,
) -> None:
    """Make a key pair, and print the variables that name it. A key is never overwritten: tokens depend on it."""
    flags = {"jwt.private_key_path": private, "jwt.public_key_path": public}
    private_path, public_path = _paths(load_settings(config, data_dir, flags).settings)
    for path in (private_path, public_path):
        if path.exists():
            raise CannotStart(_exists(path))
    try:
        made = create_key_pair(private_path, public_path)
    except OSError as error:
        raise CannotStart(f"the keys cannot be written to {error.filename}: {error.strerror}") from error
    if not made:
        raise CannotStart(_exists(private_path))
    typer.echo(f"XZEPR__JWT__PRIVATE_KEY_PATH={private_path.absolute()}")
    typer.echo(f"XZEPR__JWT__PUBLIC_KEY_PATH={public_path.absolute()}")


def _paths(settings: Settings) -> tuple[Path, Path]:
    """The files that the settings name, else those of the data folder, where the embedded hub keeps its own."""
    folder = settings.data_dir / "keys"
    return (
        settings.jwt.private_key_path or folder / "private.pem",
        settings.jwt.public_key_path or folder / "public.pem",
    )


def _exists(path: Path) -> str:
    return f"{path} exists, and a key is never overwritten: move it away, or name other files by --private and --public"

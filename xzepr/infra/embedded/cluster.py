"""The database cluster on disk: its creation, its version, and the access of the hub's account."""

import shutil
import subprocess
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account, clean_environment, hub_user
from xzepr.infra.embedded.binaries import MAJOR

SUPERUSER = "postgres"
OWNER = "xzepr"


def prepare_cluster(account: Account, binaries: Path, cluster: Path, *, durable: bool = True) -> bool:
    """Creates the cluster if there is none, and grants access to the hub's account. Returns whether it was created.

    Raises CannotStart if it cannot be created, or if another major version of PostgreSQL created it.
    """
    created = not cluster.exists()
    if created:
        _create(account, binaries, cluster, durable=durable)
    _check_version(cluster)
    _write_access(account, cluster)
    return created


def _create(account: Account, binaries: Path, cluster: Path, *, durable: bool) -> None:
    """Runs initdb in a temporary folder and renames it, so that a killed initdb leaves no incomplete cluster.

    The built-in locale provider has C.UTF-8 even if the operating system does not.
    """
    new = cluster.with_name(cluster.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    account.own(new)
    options = ["-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options += ["--auth-local=peer", "--auth-host=reject", "--no-instructions", *([] if durable else ["--no-sync"])]
    command = account.command(binaries / "initdb", "-D", str(new), *options)
    done = subprocess.run(  # noqa: S603
        command, cwd="/", env=clean_environment(), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise CannotStart(
            f"PostgreSQL could not create its database in {cluster}: {(done.stderr or done.stdout).strip()}"
        )
    new.rename(cluster)


def _check_version(cluster: Path) -> None:
    try:
        version = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise CannotStart(f"{cluster} is not a PostgreSQL database: move it away, or use another --data-dir") from None
    except PermissionError:
        raise CannotStart(
            f"the database in {cluster} belongs to another user: start xzepr as that user, or use another --data-dir"
        ) from None
    if version != MAJOR:
        raise CannotStart(
            f"the database in {cluster} was created by PostgreSQL {version}, and this xzepr has PostgreSQL {MAJOR}:"
            f" dump it with the xzepr that created it, and restore it into a new --data-dir"
        )


def _write_access(account: Account, cluster: Path) -> None:
    """Lets the hub's account connect. Written at each start, because another user may have started the hub."""
    user = hub_user().replace('"', '""')
    _write(account, cluster / "pg_hba.conf", "local all all peer map=hub\n")
    _write(account, cluster / "pg_ident.conf", f'hub "{user}" {OWNER}\nhub "{user}" {SUPERUSER}\n')


def _write(account: Account, path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    account.own(path)

"""The database cluster on disk: made whole or not at all, of the right version, open to the hub's own account only."""

import shutil
import subprocess
from pathlib import Path

from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import Account, clean_environment, hub_user
from xzepr.infra.embedded.binaries import MAJOR

SUPERUSER = "postgres"
OWNER = "xzepr"


def prepare_cluster(account: Account, binaries: Path, cluster: Path, *, durable: bool = True) -> bool:
    """Make the cluster if there is none, and write who may connect; returns whether it was made."""
    made = not cluster.exists()
    if made:
        _make(account, binaries, cluster, durable=durable)
    _check_version(cluster)
    _write_access(account, cluster)
    return made


def _make(account: Account, binaries: Path, cluster: Path, *, durable: bool) -> None:
    """Run initdb beside the final place and rename: one that was killed leaves nothing that looks finished.

    The built-in locale provider gives C.UTF-8 also where the operating system has no such locale.
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
            f"PostgreSQL could not make its database in {cluster}: {(done.stderr or done.stdout).strip()}"
        )
    new.rename(cluster)


def _check_version(cluster: Path) -> None:
    try:
        found = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise CannotStart(f"{cluster} is not a PostgreSQL database: move it away, or use another --data-dir") from None
    except PermissionError:
        raise CannotStart(
            f"the database in {cluster} belongs to another user: start xzepr as that user, or use another --data-dir"
        ) from None
    if found != MAJOR:
        raise CannotStart(
            f"the database in {cluster} was made by PostgreSQL {found} and this xzepr brings PostgreSQL {MAJOR}:"
            f" dump it with the xzepr that made it and load it into a new --data-dir"
        )


def _write_access(account: Account, cluster: Path) -> None:
    """Written at each start, because the hub may have been started by another user than last time."""
    user = hub_user().replace('"', '""')
    _write(account, cluster / "pg_hba.conf", "local all all peer map=hub\n")
    _write(account, cluster / "pg_ident.conf", f'hub "{user}" {OWNER}\nhub "{user}" {SUPERUSER}\n')


def _write(account: Account, path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    account.own(path)

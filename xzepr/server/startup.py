"""Start-up of a server: its address, its database and schema, its keys, and the first administrator."""

import asyncio
import gc
import importlib
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from xzepr import __version__
from xzepr.core.errors import CannotStart, Problem
from xzepr.features.users.service import Users
from xzepr.infra import revisions
from xzepr.infra.crypto import KeyPair, signing_keys, write_password_file
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.settings import Settings

# Connections of one process besides its pool: recorder, feed, relay, four for catch-up reads, one that requests cannot
# take, and one that is opened on demand.
_OWN_CONNECTIONS = 9
_OTHER_CONNECTIONS = 20  # for psql, pg_dump and other tools on the embedded database
_UNSENT_BYTES = 128 * 1024  # unsent bytes that the kernel buffers for one client; its default is 4 MB


def import_server() -> None:
    """Imports what serves clients, which takes half a second, in which PostgreSQL can start.

    Garbage is not collected until `serve_hub` enables that: almost all objects of the start stay, and looking for the
    others would take a fifth of the start.
    """
    gc.disable()
    for name in ("http_server", "loops"):
        importlib.import_module(f"xzepr.server.{name}")


def listen(host: str, port: int) -> socket.socket:
    """Returns a bound socket that does not accept yet. Raises CannotStart if the address is taken or not local."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror):
            raise CannotStart(
                f"--host {host} has no address ({error.strerror}): use an address of this machine"
            ) from error
        raise CannotStart(
            f"Cannot listen on {host}:{port} ({error.strerror}): stop what listens there, or choose another with "
            "--port or --host."
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Returns host:port as it is written in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def database(settings: Settings) -> AsyncGenerator[str]:
    """Yields the URL of a database with this version's schema; runs the embedded one unless `database.url` is set."""
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
        await asyncio.to_thread(ensure_schema, url, embedded=False)
        yield url
        return
    # One process more than `server.workers`: `xzepr work` may use the same database.
    processes = settings.server.workers + 1
    connections = processes * (settings.database.max_connections + _OWN_CONNECTIONS) + _OTHER_CONNECTIONS
    options = {"max_connections": str(max(100, connections))}
    postgres = await EmbeddedPostgres.start(settings.data_dir, report=print_line, settings=options)
    keeper = asyncio.create_task(postgres.keep_running(print_line))
    try:
        await asyncio.to_thread(ensure_schema, postgres.url, embedded=True)
        yield postgres.url
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await postgres.stop()


def ensure_schema(url: str, *, embedded: bool) -> None:
    """Migrates the embedded database and checks an external one. Raises CannotStart if the schema does not fit."""
    if revisions.are_current(url):
        return
    from xzepr.infra import migrate  # takes most of a second to import and is rarely needed

    if embedded:
        migrate.migrate(url, report=print_line)
    else:
        migrate.check(url)


def signing_keys_of(settings: Settings) -> KeyPair:
    """Returns the keys that sign tokens. Raises CannotStart if they are missing or broken."""
    jwt = settings.jwt
    embedded = settings.database.url is None
    return signing_keys(jwt.private_key_path, jwt.public_key_path, data_dir=settings.data_dir, embedded=embedded)


async def ensure_admin(users: Users, settings: Settings) -> None:
    """Creates the first administrator. A generated password is shown on a terminal, else written to a file."""
    auth, path = settings.auth, settings.data_dir / "admin-password"

    def save(password: str) -> None:
        if sys.stdout.isatty():
            print_line(
                f"First start: log in as {auth.admin_username!r} with the password {password} (it is shown only now)"
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_password_file(path, password)
            print_line(f"First start: the password of {auth.admin_username!r} is in {path.resolve()}")

    password = auth.admin_password
    await users.ensure_admin(
        auth.admin_username, None if password is None else password.get_secret_value(), save_password=save
    )


@contextmanager
def startup_errors() -> Generator[None]:
    """Turns a Problem inside the block into CannotStart."""
    try:
        yield
    except Problem as problem:
        raise CannotStart(f"The hub cannot start: {problem.message}.") from problem


def print_banner(settings: Settings, listener: socket.socket) -> None:
    """Prints where the hub listens and what it uses."""
    address = address_of(listener)
    for wildcard, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):  # no client can use a wildcard
        address = address.replace(wildcard, loopback)
    print_line(f"XZepr {__version__} answers at http://{address}")
    print_line(f"  playground   http://{address}/graphql/playground")
    print_line(f"  data folder  {settings.data_dir.resolve()}")
    if settings.server.workers > 1:
        print_line(f"  processes    {settings.server.workers}")
    print_line(f"  Kafka        {describe_kafka(settings)}")


def describe_kafka(settings: Settings) -> str:
    """Returns where the stream is relayed to, for the banner."""
    if not settings.kafka.enabled:
        return "left to other processes, such as `xzepr work`"
    return ", ".join(settings.kafka.brokers) or "off: set kafka.brokers to publish the stream, from its beginning"


def print_line(line: str) -> None:
    """Prints a line for the operator."""
    print(line, flush=True)

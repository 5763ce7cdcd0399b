"""Generates the reference page of permissions from the code: run `python -m tests.contract.permissions_page`."""

from collections.abc import Sequence
from pathlib import Path

from xzepr.core.actor import ROLES, Permission, Role

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"

_MEANING = {
    Permission.EVENT_CREATE: "record events",
    Permission.EVENT_READ: "read events, units and gates, and the stream's messages about them",
    Permission.RECEIVER_CREATE: "create event receivers",
    Permission.RECEIVER_READ: "read event receivers and their schemas, and the stream's messages about them",
    Permission.RECEIVER_UPDATE: "change event receivers and their schemas",
    Permission.RECEIVER_DELETE: "delete event receivers that nothing refers to",
    Permission.GROUP_CREATE: "create event receiver groups",
    Permission.GROUP_READ: "read event receiver groups, and the stream's messages about them",
    Permission.GROUP_UPDATE: "change, enable and disable event receiver groups",
    Permission.GROUP_DELETE: "delete event receiver groups",
    Permission.USER_MANAGE: "create, list, enable and disable users; revoke any user's API keys",
    Permission.STREAM_ADMIN: "see the status of the stream and its processes; control the relay to Kafka",
}

_INTRODUCTION = """\
# Permissions and roles

A user has one or more roles, and the permissions of all of them. An API key has the permissions of its user, or fewer
if it was created with a list of permissions. The table comes from `xzepr/core/actor.py`. The server and the schema's
directives use the same table, and a test compares them.

Everything in GraphQL except `login` and `__typename` needs a token or an API key; see
[authentication](../explanations/security.md). `/health`, `/metrics` and the page of the playground need neither.
"""


def page() -> str:
    """Returns the whole page as Markdown."""
    roles = list(Role)
    header = ["permission", "allows you to", *(f"`{role}`" for role in roles)]
    rows = [
        [f"`{permission}`", _MEANING[permission], *("yes" if permission in ROLES[role] else "" for role in roles)]
        for permission in Permission
    ]
    return f"{_INTRODUCTION}\n{_table(header, rows)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", "---", *(":---:" for _ in header[2:])], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |").replace("|  |", "| |")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

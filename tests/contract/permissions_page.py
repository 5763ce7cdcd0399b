"""The reference page of permissions, written from the code: `python -m tests.contract.permissions_page` renews it."""

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
    Permission.USER_MANAGE: "create, enable and disable users; revoke anybody's API keys",
    Permission.STREAM_ADMIN: "see and steer how the stream is copied to Kafka",
}

_INTRODUCTION = """\
# Permissions and roles

A user has one or more roles, and may do what any of them allows. An API key may do what its user may do, or less if it
was narrowed to a list of permissions. `xzepr/core/actor.py` is the one table that the server, the schema's directives
and this page are made from; a test compares them.

Everything but `login`, `__typename` and the health checks needs a user or an API key. See
[who is asking](../explanations/security.md).
"""


def page() -> str:
    """The whole page in Markdown."""
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

"""Finding receivers and groups on a hub by what people call them: an id, or a name with as much as it takes."""

from dataclasses import dataclass
from typing import Any

from xzepr.cli.client.http import Client, JsonObject
from xzepr.cli.output import visible
from xzepr.core.errors import CannotStart
from xzepr.core.ids import is_id

_MOST = 100


@dataclass(frozen=True, slots=True)
class Noun:
    """Something that is found by name, type and version."""

    word: str
    list: str
    filter: str
    fields: str

    def document(self) -> str:
        """The query for all of a name."""
        return (
            f"query ($filter: {self.filter}!) {{ {self.list}(filter: $filter, first: {_MOST}) "
            f"{{ nodes {{ {self.fields} }} }} }}"
        )


RECEIVER = Noun(
    "receiver",
    "eventReceivers",
    "EventReceiverFilterInput",
    "id name type version description schema enabled resourceVersion",
)
GROUP = Noun(
    "group",
    "eventReceiverGroups",
    "EventReceiverGroupFilterInput",
    "id name type version description enabled resourceVersion eventReceiverIds",
)


def named(
    client: Client, noun: Noun, name: str, type: str | None = None, version: str | None = None
) -> list[JsonObject]:
    """All that have the name, and the type and version where they are given; newest first, at most 100."""
    wanted = {"name": name, "type": type, "version": version}
    found: list[Any] = client.ask(noun.document(), filter=wanted)[noun.list]["nodes"]
    return found


def id_of(client: Client, noun: Noun, called: str, type: str | None = None, version: str | None = None) -> str:
    """The id of the one that is meant; an id is taken as it is. Raises CannotStart for none and for several."""
    if is_id(called):
        return called
    found = named(client, noun, called, type, version)
    if not found:
        raise CannotStart(f"the hub at {client.hub} has no {noun.word} {described(called, type, version)}")
    if len(found) > 1:
        raise CannotStart(
            f"the hub has {len(found)} {noun.word}s {described(called, type, version)}: name one by its id, or by "
            f"--{noun.word}-type and --{noun.word}-version ({listed(found)})"
        )
    return str(found[0]["id"])


def described(name: str, type: str | None, version: str | None) -> str:
    """What was asked for, as messages say it: 'build' (stage 1)."""
    rest = " ".join(visible(part) for part in (type, version) if part is not None)
    return f"{visible(name)!r}{f' ({rest})' if rest else ''}"


def listed(found: list[JsonObject]) -> str:
    """Several of a name, told apart."""
    shown = [f"{one['id']} is {visible(one['type'])} {visible(one['version'])}" for one in found[:5]]
    return "; ".join([*shown, "…"] if len(found) > 5 else shown)

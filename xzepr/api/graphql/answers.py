"""What a GraphQL operation is answered, whatever brings it."""

from dataclasses import dataclass
from typing import cast

import orjson

from xzepr.api.errors import JsonObject
from xzepr.api.graphql.problems import masked


@dataclass(frozen=True, slots=True)
class Answer:
    """A GraphQL response: `data`, `errors` or both."""

    body: JsonObject
    request_id: str
    cursor: str | None = None
    """Where in the stream a message of a subscription stands, if it says so."""
    written: bytes | None = None
    """The response as JSON, of an answer that was written before; its body is not kept."""

    @property
    def errors(self) -> list[JsonObject]:
        """The errors in the response."""
        return cast(list[JsonObject], self.body.get("errors", []))

    def text(self) -> bytes:
        """The response as JSON in UTF-8. A value that JSON cannot hold is our own fault and told as such."""
        if self.written is not None:
            return self.written
        try:
            return orjson.dumps(self.body, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC)
        except TypeError as error:
            return orjson.dumps({"errors": [masked(error, self.request_id)], "data": None})

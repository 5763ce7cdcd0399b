"""The bodies of POST requests: JSON in UTF-8, also compressed with gzip."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Coroutine
from functools import lru_cache

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from xzepr.api.errors import BadRequest, UnsupportedContentEncoding, UnsupportedMediaType
from xzepr.api.request_head import Head
from xzepr.core.errors import TooLarge

_UTF8_NAMES = frozenset({"utf-8", "utf8"})
_GZIP_NAMES = frozenset({b"gzip", b"x-gzip"})  # RFC 9110 has the second name for old clients
_GZIP_FORMAT = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 256 * 1024  # are decompressed in less than a millisecond


def read_body(head: Head, receive: Receive, max_bytes: int) -> Coroutine[None, None, bytes]:
    """Returns a coroutine that reads the body and returns its JSON text.

    Raises UnsupportedMediaType if the headers announce anything else. The coroutine raises ClientDisconnect, and for a
    compressed body BadRequest if it is not valid gzip, and TooLarge if it is longer than `max_bytes` after
    decompression.
    """
    if not _is_json(head.first(b"content-type") or b""):
        raise UnsupportedMediaType("send the request as 'Content-Type: application/json' in UTF-8")
    if head.first(b"content-encoding") is not None and _is_gzip(b",".join(head.every(b"content-encoding"))):
        return _read_gzip(receive, max_bytes)
    return _read(receive)


@lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    """Returns whether a body of this type is JSON in UTF-8."""
    media_type, *parameters = (part.strip() for part in content_type.decode("latin-1").lower().split(";"))
    charsets = [p.partition("=")[2].strip(' "') for p in parameters if p.startswith("charset")]
    return media_type == "application/json" and _UTF8_NAMES.issuperset(charsets)


def _is_gzip(content_encoding: bytes) -> bool:
    """Returns whether a body is compressed. Raises UnsupportedContentEncoding unless it is by gzip, and only once."""
    names = [name for part in content_encoding.lower().split(b",") if (name := part.strip()) not in (b"", b"identity")]
    if len(names) > 1 or not _GZIP_NAMES.issuperset(names):
        raise UnsupportedContentEncoding
    return bool(names)


async def _read(receive: Receive) -> bytes:
    """Returns the body of a request as it was sent."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_gzip(receive: Receive, max_bytes: int) -> bytes:
    """Returns the decompressed body. At most one byte beyond the limit is decompressed."""
    stream = zlib.decompressobj(_GZIP_FORMAT)
    pieces: list[bytes] = []
    size = 0
    try:
        async for compressed in _chunks(receive):
            rest, is_full = compressed, False
            while rest or is_full:
                room = min(_PIECE_BYTES, max_bytes - size + 1)
                piece = stream.decompress(rest, room)
                pieces.append(piece)
                size += len(piece)
                if size > max_bytes:
                    raise TooLarge(f"the decompressed body is larger than {max_bytes} bytes")
                rest, is_full = stream.unconsumed_tail, len(piece) == room
                if is_full:
                    await asyncio.sleep(0)  # other requests run between two pieces
            if stream.unused_data:
                raise BadRequest("the body has data after the end of its gzip stream")
    except zlib.error:
        raise BadRequest("the body is not valid gzip") from None
    if not stream.eof:
        raise BadRequest("the gzip body ends too early")
    return b"".join(pieces)


async def _chunks(receive: Receive) -> AsyncGenerator[bytes]:
    """Yields the parts of a body as they arrive."""
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        has_more = message.get("more_body", False)
        yield message.get("body", b"")

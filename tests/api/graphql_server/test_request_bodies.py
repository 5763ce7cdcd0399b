"""Bodies of requests: gzip, its limits, and the byte order mark."""

import gzip
import random
import tracemalloc
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator

import httpx2
import pytest

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app

QUERY = b'{"query":"{ hello }"}'
DATA = {"data": {"hello": "hello world"}}
PACKED = gzip.compress(QUERY, mtime=0)
GZIP = {"Content-Encoding": "gzip"}
MAX_BYTES = 1_000_000


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app(backend, max_bytes=MAX_BYTES))
    headers = BEARER | {"Content-Type": "application/json"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as client:
        yield client


def padded(size: int) -> bytes:
    """Returns the query with spaces at the end."""
    return QUERY + b" " * (size - len(QUERY))


@pytest.mark.parametrize("encoding", ["gzip", "GZip", " x-gzip ", "identity, gzip"])
async def test_gzip_body_is_decompressed(client: httpx2.AsyncClient, encoding: str) -> None:
    response = await client.post("/graphql", content=PACKED, headers={"Content-Encoding": encoding})
    assert response.json() == DATA


@pytest.mark.parametrize("encoding", ["identity", "", ","])
async def test_body_without_compression_is_read(client: httpx2.AsyncClient, encoding: str) -> None:
    response = await client.post("/graphql", content=QUERY, headers={"Content-Encoding": encoding})
    assert response.json() == DATA


async def test_gzip_body_in_parts_is_decompressed(client: httpx2.AsyncClient) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for byte in PACKED:
            yield bytes([byte])
            yield b""

    assert (await client.post("/graphql", content=parts(), headers=GZIP)).json() == DATA


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "br, gzip", "gzip;q=1"])
async def test_other_content_encoding_gets_415(client: httpx2.AsyncClient, backend: FakeBackend, encoding: str) -> None:
    response = await client.post("/graphql", content=PACKED, headers={"Content-Encoding": encoding})
    assert (response.status_code, code_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["accept-encoding"] == "gzip"
    assert backend.contexts == []


async def test_two_content_encodings_get_415(client: httpx2.AsyncClient) -> None:
    headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
    response = await client.post("/graphql", content=PACKED, headers=headers)
    assert response.status_code == 415


@pytest.mark.parametrize(
    "content",
    [
        b"",
        QUERY,
        PACKED[:10],
        PACKED[:-1],
        PACKED[:-8] + bytes(8),
        PACKED + b"x",
        PACKED + PACKED,
    ],
)
async def test_corrupt_gzip_body_gets_400(client: httpx2.AsyncClient, backend: FakeBackend, content: bytes) -> None:
    response = await client.post("/graphql", content=content, headers=GZIP)
    assert (response.status_code, code_of(response)) == (400, "BAD_REQUEST")
    assert "gzip" in response.json()["errors"][0]["message"]
    assert backend.contexts == []


@pytest.mark.parametrize("size", [256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, MAX_BYTES])
async def test_long_gzip_body_is_decompressed(client: httpx2.AsyncClient, size: int) -> None:
    response = await client.post("/graphql", content=gzip.compress(padded(size)), headers=GZIP)
    assert response.json() == DATA


async def test_incompressible_gzip_body_is_decompressed(client: httpx2.AsyncClient) -> None:
    name = random.Random(1).randbytes(250_000).hex()
    content = gzip.compress(b'{"query":"{ hello }","extensions":{"name":"%s"}}' % name.encode())
    assert (await client.post("/graphql", content=content, headers=GZIP)).json() == DATA


async def test_gzip_body_beyond_the_limit_gets_413(client: httpx2.AsyncClient, backend: FakeBackend) -> None:
    response = await client.post("/graphql", content=gzip.compress(padded(MAX_BYTES + 1)), headers=GZIP)
    assert (response.status_code, code_of(response)) == (413, "TOO_LARGE")
    assert response.headers["connection"] == "close"
    assert backend.contexts == []


async def test_gzip_bomb_is_not_decompressed(client: httpx2.AsyncClient) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        response = await client.post("/graphql", content=bomb, headers=GZIP)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.status_code == 413
    assert peak < 3 * MAX_BYTES


async def test_byte_order_mark_is_skipped(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/graphql", content=BOM_UTF8 + QUERY)).json() == DATA
    packed = gzip.compress(BOM_UTF8 + QUERY)
    assert (await client.post("/graphql", content=packed, headers=GZIP)).json() == DATA
    for content in (BOM_UTF8, BOM_UTF8 * 2 + QUERY, QUERY.decode().encode("utf-16")):
        response = await client.post("/graphql", content=content)
        assert (response.status_code, code_of(response)) == (400, "BAD_REQUEST")


def code_of(response: httpx2.Response) -> str:
    (error,) = response.json()["errors"]
    return error["extensions"]["code"]

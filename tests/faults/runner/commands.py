"""What an operator does when a relay has stopped: looks at its status, chooses, and tells it how to go on."""

import asyncio
import json
import re
import subprocess
import sys

from tests.faults.runner.ledger import Json
from tests.faults.runner.stage import Stage
from tests.support.server import ROOT, clean_environment


async def xzepr(on: Stage, *arguments: str) -> str:
    """What the command prints; fails when it does not end well."""
    hub = next(hub for hub in on.hubs if hub.runs)
    command = [sys.executable, "-m", "xzepr", *arguments, "--hub", f"http://127.0.0.1:{hub.port}"]
    environ = clean_environment() | {"XZEPR_API_KEY": on.secret}
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def stopped(on: Stage, seconds: float = 60) -> str:
    """Why the relay stopped, as `xzepr stream status` tells it; waits until it has."""
    async with asyncio.timeout(seconds):
        while (route := await _route(on))["state"] != "STOPPED":
            await asyncio.sleep(0.5)
    return str(route["detail"])


async def following(on: Stage, seconds: float = 60) -> None:
    """Returns when it is said to follow the stream."""
    async with asyncio.timeout(seconds):
        while (await _route(on))["state"] != "FOLLOWING":
            await asyncio.sleep(0.5)


async def _route(on: Stage) -> Json:
    found: Json = json.loads(await xzepr(on, "stream", "status", "--json"))
    [route] = [one for one in found["routes"] if one["route"] == on.topic]
    return route


async def in_metrics(on: Stage, state: str, seconds: float = 10) -> None:
    """Returns when a hub's /metrics says that its relay is in that state."""
    wanted = re.compile(rf'^xzepr_relay_state{{[^}}]*state="{state}"[^}}]*}} 1(\.0)?$', re.MULTILINE)
    async with asyncio.timeout(seconds):
        while not any([wanted.search(await _metrics(hub.port)) for hub in on.hubs if hub.runs]):
            await asyncio.sleep(0.2)


async def _metrics(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()

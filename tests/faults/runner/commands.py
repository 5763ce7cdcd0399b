"""The commands of an administrator that resumes a stopped relay."""

import asyncio
import json
import re
import subprocess
import sys

from tests.faults.runner.deployment import Deployment
from tests.faults.runner.ledger import Json
from tests.support.server import ROOT, clean_environment


async def run_xzepr(system: Deployment, *arguments: str) -> str:
    """Runs `xzepr` against a running hub and returns its output. Fails if the exit code is not 0."""
    hub = next(hub for hub in system.hubs if hub.is_running)
    command = [sys.executable, "-m", "xzepr", *arguments, "--hub", f"http://127.0.0.1:{hub.port}"]
    environ = clean_environment() | {"XZEPR_API_KEY": system.secret}
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def wait_until_stopped(system: Deployment, seconds: float = 60) -> str:
    """Waits until the relay has stopped. Returns the reason that `xzepr stream status` shows."""
    async with asyncio.timeout(seconds):
        while (route := await _route(system))["state"] != "STOPPED":
            await asyncio.sleep(0.5)
    return str(route["detail"])


async def wait_until_following(system: Deployment, seconds: float = 60) -> None:
    """Waits until `xzepr stream status` shows that the relay follows the stream."""
    async with asyncio.timeout(seconds):
        while (await _route(system))["state"] != "FOLLOWING":
            await asyncio.sleep(0.5)


async def _route(system: Deployment) -> Json:
    status: Json = json.loads(await run_xzepr(system, "stream", "status", "--json"))
    [route] = [route for route in status["routes"] if route["route"] == system.topic]
    return route


async def wait_for_state_in_metrics(system: Deployment, state: str, seconds: float = 10) -> None:
    """Waits until the /metrics of a hub report that its relay is in that state."""
    sample = re.compile(rf'^xzepr_relay_state{{[^}}]*state="{state}"[^}}]*}} 1(\.0)?$', re.MULTILINE)
    async with asyncio.timeout(seconds):
        while not any([sample.search(await _metrics(hub.port)) for hub in system.hubs if hub.is_running]):
            await asyncio.sleep(0.2)


async def _metrics(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()

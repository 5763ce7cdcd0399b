"""Faults under load: what a test of `make faults` is made of. Nothing of the hub is patched; everything is a process.

A test opens a stage, and says what to do to it:

    @pytest.mark.faults
    async def test_kill_of_a_web_process(request: pytest.FixtureRequest) -> None:
        async with stage() as on:
            await under_fault("kill -9 of a web process", on, request.node, kill, times=5)

where `kill(on: Stage)` is an async function that injects the fault once and returns when it is over. `under_fault` (in
`run.py`) starts clients (240 events/s with idempotency keys, again until acknowledged, to either hub), subscribers
(WebSocket and SSE, staying and restless, with a filter and without, which come back with their last cursor, a
message's or a checkpoint's) and somebody who changes groups;
calls the function `times` times; waits until all have their answers and have reached the head; then collects evidence
and lets the checker judge it. It fails with everything that is wrong, and keeps a `FaultReport`.

| module | what it has |
|---|---|
| `stage.py` | `stage(…)`: `.postgres .hubs .relays .broker .leader()`; each of them: `.start() .kill() .pid .lines` |
| `database.py` | `DatabaseServer`: `.start() .stop() .crash() .kill() .pid .settings .environ .execute() .log` |
| `run.py` | `under_fault`; `FaultRun` for what does not fit: `loaded()`, `.evidence()`, `.judge(node)` apart |
| `writers.py`, `subscribers.py` | the clients; `Load.try_again` says after which codes they come back |
| `gardener.py` | who changes groups meanwhile |
| `ledger.py` | what clients and subscribers know: `Entry`, `Ledger`, `Seen`, `Attendance` |
| `evidence.py` | what is really there: SQL, a read_committed consumer, the hub's answers about gates |
| `checker.py`, `gates.py` | the judge, one function for each promise; the replay of gates |
| `following.py`, `in_kafka.py` | its parts: what subscribers must have got, and what Kafka must hold |
| `rewritten.py` | what a restore makes of a history |
| `small_history.py` | a true history that tests of the judge doctor |
| `report.py` | the line of JSON, the table; also `python -m tests.support.faults.report FILE` |

Clients and judge import nothing of the hub; a test holds that. What the judge looks at is asked for, or is None: an
empty answer is a wrong one. Each check has a doctored history that it finds out. A fault that cannot be had on a
machine skips, with its reason: `pytest.skip("no libfaketime here")`; without a broker the rest of a run still takes
place, and its report says so. A test that is about Kafka begins with `need_broker(on)`.

Environment: `XZEPR_TEST_FAULT_TIMES` injects each fault at least so many times, `XZEPR_TEST_FAULT_REPORT` names the
file that lines of JSON are appended to.
"""

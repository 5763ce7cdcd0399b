"""The fault runner: workload, subscribers, faults and the checker. Start with `tests/faults/README.md`."""

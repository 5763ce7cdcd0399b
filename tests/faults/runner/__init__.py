"""The fault runner: load, subscribers, faults and the judge. Start with `tests/faults/README.md`."""

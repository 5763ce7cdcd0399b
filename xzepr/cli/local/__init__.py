"""Commands that read the settings and the database of this machine, and need no running hub."""

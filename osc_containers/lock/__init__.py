"""The lock file: what was pinned."""

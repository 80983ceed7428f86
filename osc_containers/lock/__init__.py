"""The lock file: the exact content of every container of a package."""

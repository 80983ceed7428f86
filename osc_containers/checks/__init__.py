"""Checks of a package: functions from a context to findings, which only read files and use no network."""

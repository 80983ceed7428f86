"""The package around a description: its files, _service, working copy."""

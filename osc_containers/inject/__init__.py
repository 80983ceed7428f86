"""The build-root half: overlay directories, units, the loader, the bundle."""

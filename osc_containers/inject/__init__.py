"""Build-root half: verify the archives and write overlay directories, systemd units, the loader and the bundle."""

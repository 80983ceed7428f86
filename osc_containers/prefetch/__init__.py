"""The network half: pin, download, assemble archives."""

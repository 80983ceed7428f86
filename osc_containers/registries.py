"""Which registry to ask for an image, and how."""

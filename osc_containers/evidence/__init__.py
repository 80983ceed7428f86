"""Whether a signature policy accepts an image, and what is embedded: signatures and SBOMs."""

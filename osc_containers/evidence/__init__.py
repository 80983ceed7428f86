"""Who signed an image, whether a signature policy accepts that, and what is embedded: signatures and SBOMs."""

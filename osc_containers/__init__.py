"""Pin, prefetch and inject the OCI containers that kiwi image descriptions name."""

__version__ = "0.1.0"

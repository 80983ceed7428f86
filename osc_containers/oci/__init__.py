"""The OCI vocabulary: digests, references, platforms, manifests."""

"""Signature policies, and where signatures are: policy.json and registries.d of podman."""

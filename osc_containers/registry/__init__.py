"""The client of registries: the distribution API over HTTP, with the settings that podman and skopeo have.

`distribution` is what the rest of the library uses; what stands behind it stays in here.
"""

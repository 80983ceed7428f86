"""The HTTP client for registries: the distribution API, with the same settings as podman and skopeo."""

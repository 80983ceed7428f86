"""Settings shared with podman and skopeo: logins, mirrors, certificates and proxies."""

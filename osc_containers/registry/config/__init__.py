"""Configuration files that podman and skopeo read, too: logins, mirrors, certificates, proxies."""

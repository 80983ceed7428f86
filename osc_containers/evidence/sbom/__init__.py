"""The containers in an image as SPDX and CycloneDX."""

"""The image store: images unpacked in the build root, in the form in which podman finds them without loading them."""

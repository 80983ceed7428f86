"""Tests on whole machines: real systemd, real engines."""

"""Untrusted bytes to values and back: XML, JSON, tar, cpio."""

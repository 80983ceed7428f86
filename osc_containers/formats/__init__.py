"""Readers and writers of file formats: XML, JSON, tar, cpio; and numbers for display."""

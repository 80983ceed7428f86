"""Receive blobs into files: concurrently, and resumable after an interrupted run."""

"""Safe file I/O: atomic writes, byte ranges, rooted trees, the user's cache."""

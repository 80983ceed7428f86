"""Safe file I/O: atomic writes, byte ranges, rooted trees."""

"""Container archives: layout, lookup, verification."""

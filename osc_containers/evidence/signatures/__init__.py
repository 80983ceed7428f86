"""Signatures as they are stored, what they say, and the keys and programs that verify them."""

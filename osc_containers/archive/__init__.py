"""The archive: its layout, finding one, verifying one."""

"""What people see: tables, findings, lists of changes, and progress bars at a terminal."""

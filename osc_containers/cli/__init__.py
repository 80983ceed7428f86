"""Entry points: the console script and its commands, the two source services, and their output."""

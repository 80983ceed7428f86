"""Entry points: the console script, the two services, and what they print."""

"""What a kiwi description means."""

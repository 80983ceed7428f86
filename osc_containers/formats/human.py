"""Numbers and sizes for display."""


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(count: int) -> str:
    """Return a number of bytes in decimal units, rounded for display: `1.2 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        # The limits are those at which a number rounds up to the next digit: 999.5 kB is 1.0 MB.
        if amount < 999.5 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError

"""Where the user's cache is. It saves time and no more: whatever is wrong with it, all is done without it."""

from pathlib import Path

import platformdirs


def directory() -> Path:
    """Return our directory in the user's cache; it may not exist.

    :raises OSError: there is no place for it.
    """
    try:
        found = platformdirs.user_cache_path("osc-containers")
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from None
    if not found.is_absolute():  # "~/.cache" from older ones for a user without a home
        raise FileNotFoundError(f"no home directory: {found}")
    return found

"""The two exceptions whose text is meant for the user: one line that names file or flag, value and remedy."""


class InputError(ValueError):
    """Wrong use or bad input, told before any work starts (exit code 2)."""


class OutputError(RuntimeError):
    """A result could not be written, as on a full disk (exit code 1)."""

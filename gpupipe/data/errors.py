"""The error type of the data layer."""

from gpupipe.runtime.errors import UserError


def printable(text: str) -> str:
    """Escape line breaks and other control characters ("\\n"), so that the text is one line and safe on a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DataError(UserError):
    """Data that the user must correct: one line with the problem and the fix. Nothing was written.

    >>> str(DataError("column 'a\\nb' has type bool, expected numbers"))
    "column 'a\\\\nb' has type bool, expected numbers"
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

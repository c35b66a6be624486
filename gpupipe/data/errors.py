"""The one error of the data layer."""

from gpupipe.runtime.errors import UserError


def printable(text: str) -> str:
    """The text with line breaks and other control characters written out ("\\n"), safe for a terminal and one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DataError(UserError):
    """Data that the user must look at: one line that says what is wrong and what mends it. Nothing was written."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

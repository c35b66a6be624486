"""A console that prints every text as it is: no name, message or path from data is taken for markup."""

from __future__ import annotations

from typing import IO, Any

from rich.console import Console
from rich.text import Text

from gpupipe.cli.output import readable


class PlainConsole(Console):
    """Rich's Console without markup, emoji codes and highlighting.

    Styles are given by `rich.text.Text`, which no text from data can be mistaken for. In strings control characters are
    escaped, and characters that the stream's encoding lacks are replaced before a table is laid out, so that its
    columns stay aligned.

    >>> import sys
    >>> PlainConsole(sys.stdout).print("btc[usd] :smile: [bold]\\x1b[31m")
    btc[usd] :smile: [bold]\\x1b[31m
    """

    def __init__(self, file: IO[str] | None = None, **options: Any) -> None:
        super().__init__(file=file, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **how: Any) -> Text:
        """See `rich.console.Console.render_str`; how: its options."""
        shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
        return super().render_str(readable(shown, self.encoding), **how)

"""A console that prints every text as it is: no name, message or path from data is taken for markup."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from gpupipe.cli.output import readable
from gpupipe.data.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def plain_console(file: IO[str] | None = None, **options: Any) -> Console:
    """Rich's Console without markup, emoji codes and highlighting.

    Styles are given by `styled`, which no text from data can be mistaken for. In strings control characters are
    escaped, and characters that the stream's encoding lacks are replaced before a table is laid out, so that its
    columns stay aligned.

    file: where it prints; None for standard output at the time.  options: others of `rich.console.Console`.

    >>> import sys
    >>> plain_console(sys.stdout).print("btc[usd] :smile: [bold]\\x1b[31m")
    btc[usd] :smile: [bold]\\x1b[31m
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            shown = "\n".join(map(printable, text.split("\n")))
            return super().render_str(readable(shown, self.encoding), **how)

    return PlainConsole(file=file, markup=False, emoji=False, highlight=False, **options)


def styled(text: str, style: str) -> Text:
    """A text in a style of Rich, such as "bold"."""
    from rich.text import Text

    return Text(text, style)

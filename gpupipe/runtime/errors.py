"""Errors that the user can mend: one clear line that names what was wrong and the fix."""


class UserError(ValueError):
    """What was asked for cannot be done as it was asked; the message is one line and names the fix."""

"""The one error of the data layer."""


class DataError(ValueError):
    """Data that the user must look at: one line that says what is wrong and what mends it. Nothing was written."""

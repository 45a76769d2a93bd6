"""The error of all converters."""


class ConversionError(ValueError):
    """Says which node or layer of a file cannot be represented, and why.

    Examples
    --------
    >>> issubclass(ConversionError, ValueError)
    True
    """

"""The errors of this package."""


class DatasetError(ValueError):
    """A dataset folder, a source text or a tokenizer file is not usable; the message says what to do."""

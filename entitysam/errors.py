"""Errors of bad input; their message is one line for the user. Nothing is imported here."""


class ConfigError(ValueError):
    """A config that cannot be built; the message names the key by its full path."""


class CheckpointError(ValueError):
    """A weight file that is missing, cannot be read, or does not fit the model; the message names the file or tensors."""

"""The error for everything a user can get wrong about environments."""


class EnvError(ValueError):
    """An environment, engine or space that cannot be served; one line that tells the way out."""

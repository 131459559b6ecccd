"""Train identity-free video anonymizers and run them."""

__version__ = "0.1.0"

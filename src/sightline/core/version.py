"""The version, in a leaf of its own so that inner code never imports the package root."""

__version__ = "0.1.0"

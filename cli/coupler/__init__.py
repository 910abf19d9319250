"""Coupler couples Container Linux machines into a cluster."""

__version__ = "0.1.0"

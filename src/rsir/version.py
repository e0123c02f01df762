"""The version of rsir that is installed."""

from importlib.metadata import version

VERSION = version("rsir")

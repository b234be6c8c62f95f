"""The version of bacpipe, read by the build and by results."""

__version__ = "2.0.0"

"""Toolhone trains open language models to call tools, and proves that it worked."""

__version__ = "0.1.0"

"""Published formats, read into conversations and tasks: one module for each format.

`formats` detects a format and reads its rows, `base` has the rules of a row, `files` reads records
from disk. Nothing is downloaded.
"""

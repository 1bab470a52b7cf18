"""Published formats, read into conversations and tasks: one module for each format.

`registry` detects a format and reads it, `base` holds the loop that all formats share, `files`
reads records from disk. Nothing is downloaded.
"""

"""The data doctor: what is wrong with a data file, why it matters, and a cleaned copy of it.

    files = [read_file(path) for path in paths]           # also rows that cannot be used
    diagnosis = diagnose(files, LengthCheck(parts, max_length))
    cleaned = clean(files, LengthCheck(parts, max_length))

Whether an answer is true is not checked.
"""

"""The data doctor: what is wrong with a data file, why it matters, and a cleaned copy of it.

    files = [read_file(path) for path in paths]               # reading: every row, also those that cannot be used
    diagnosis = diagnose(files, model, max_length)            # diagnose: all probes; verdict and exit code
    cleaned = clean(files, model, max_length)                 # cleaning: what `--fix` writes

One file for each family of probes: `arguments` (calls against schemas), `links` (results), `texts` and `typed` (calls and marks in
text), `raw` (rows before they are read), `repeats` (rows against rows), `leaks` (files against files and BFCL), `lengths` (rows
against a model), `balance` (the file as a whole). `findings` has the kinds with their remedies, `survey` the fast part that
every training runs. Whether an answer is true is not looked at.
"""

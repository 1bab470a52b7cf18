"""`python -m toolhone` is `toolhone`."""

from toolhone.cli.main import main

if __name__ == "__main__":
    main()

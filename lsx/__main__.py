"""`python -m lsx`."""

from lsx.cli.main import main

if __name__ == "__main__":
    main()

"""`python -m camora`."""

from camora.cli.main import main

if __name__ == "__main__":
    main()

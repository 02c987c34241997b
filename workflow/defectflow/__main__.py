"""`python -m defectflow` is the command `defectflow`."""

from defectflow.commands.cli import main

if __name__ == "__main__":
    main()

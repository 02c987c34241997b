"""The command `defectflow`: its parser, and what each subcommand does."""

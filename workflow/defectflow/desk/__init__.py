"""A web interface to the workflow: photographs, labels, runs and verdicts, in the files that the commands use."""

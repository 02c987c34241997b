"""A desk in the browser over the workflow: photographs, labels, runs and verdicts, in the files of the commands."""

"""Records in the folder of the desk: results, outlines, releases, live verdicts and feedback."""

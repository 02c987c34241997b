"""Which kind of defect a photograph shows: a classifier of good parts and kinds on the isolated part, held out."""

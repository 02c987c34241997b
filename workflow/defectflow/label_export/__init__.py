"""Labels out: the part and the damaged regions of a run as files of annotation tools and of training programs."""

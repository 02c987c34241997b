"""An inspector as an HTTP service: photographs are judged by a pool of processes; verdicts also go to other systems."""

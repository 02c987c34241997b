"""An inspector as a service: photographs over HTTP, judged by a pool of processes, verdicts to other systems."""

"""Running scripts: records of stages, locks of folders, worker processes."""

"""The run folder: log, report, trackers and the record of the environment."""

"""Events of a job: the record, the log lines, and the feed that readers follow."""

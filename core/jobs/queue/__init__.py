"""From a submitted spec to a claimed job: quotas, order, estimates."""

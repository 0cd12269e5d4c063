"""The worker: Celery brings hints, supervisors watch runners, and only the runners hold torch."""

"""`basin doctor`: looks at every part that the service needs, here and now, and says what to do about it."""

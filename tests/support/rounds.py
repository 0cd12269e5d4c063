"""An event to stop a loop by: it lets so many rounds pass without waiting, and knows how long each would have been."""

import threading


class Rounds(threading.Event):
    """In the place of the event that a thread waits for between its rounds; the loop then runs in the test's thread."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) > self.most:
            self.set()
        return self.is_set()

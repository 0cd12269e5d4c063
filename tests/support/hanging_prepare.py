"""A prepare process that begins and then hangs, as one does whose parser is out of address space.

python -I -m tests.support.hanging_prepare SOCKET INPUT PARENT FOLDER required|best
"""

import socket
import sys
import time

from core.process import die_with_parent
from worker import wire


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[3]))
    frame = wire.receive_frame(sock)
    assert frame is not None
    sock.sendall(wire.pack_frame("started", frame["job"], {"step": 0, "parameters": 0, "environment": {}}))
    time.sleep(600.0)


if __name__ == "__main__":
    main()

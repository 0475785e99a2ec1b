"""On PYTHONPATH this stops every connection of a Python process, and of its children, to elsewhere.

Each attempt fails as on a machine without a network, and leaves a line in $NETWORK_ATTEMPTS, since
a library may well swallow the error.
"""

import os
import sys

_LOCAL = ("127.", "localhost", "::1")
_WHERE = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0,
          "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}  # fmt: skip


def _watch(event: str, arguments: tuple) -> None:
    if event not in _WHERE:
        return
    address = arguments[_WHERE[event]]
    if isinstance(address, tuple):
        address = address[0]
    elif event.startswith(("socket.connect", "socket.send")):
        return  # no host: a Unix socket, or one that is connected already
    if isinstance(address, bytes):
        address = address.decode()
    if not address or address.startswith(_LOCAL):
        return
    with open(os.environ["NETWORK_ATTEMPTS"], "a", encoding="utf-8") as file:
        file.write(f"{event} {address}\n")
    raise OSError(f"no network here: {event} {address}")


sys.addaudithook(_watch)

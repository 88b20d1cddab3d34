"""Worker processes that share a port, in the two ways that `labkit.lab.scaling.cluster` compares.

Stands alone, so that a process starts without what the bench needs to draw.

Guarantee: a worker says its number on each connection that it gets, and closes it.
"""

from __future__ import annotations

import socket

_ONE_BYTE = 1


def take_what_is_handed(channel: socket.socket, number: int) -> None:
    """Answer connections that another process accepted, until it hangs up.

    Args:
        channel: through which they are handed.
        number: ours.
    """
    while handed := socket.recv_fds(channel, _ONE_BYTE, 1)[1]:
        with socket.socket(fileno=handed[0]) as connection:
            connection.sendall(bytes([number]))


def accept(listening: socket.socket, number: int) -> None:
    """Answer connections that the kernel gives us, until killed.

    Args:
        listening: a socket of ours alone; others listen on the same port.
        number: ours.
    """
    while True:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(bytes([number]))

"""The address the pages are served at: taken once, kept while the web server restarts."""

from __future__ import annotations

import errno
import ipaddress
import socket

from ingestion.errors import IngestionError

BACKLOG = 256


class AddressTaken(IngestionError):
    """Another program listens at this port."""


class AddressUnusable(IngestionError):
    """This machine cannot listen at this address."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at host and port.

    Raises AddressTaken when another program has it, AddressUnusable when the address is not this
    machine's or the port needs rights that are missing.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise AddressUnusable(
            f"The address {host!r} is not known here ({error.strerror}). Use an address of this machine: "
            "127.0.0.1 for this machine only, 0.0.0.0 for the network."
        ) from None
    family, kind, protocol, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressTaken(f"Port {port} is taken by another program.") from None
        if error.errno == errno.EACCES:
            raise AddressUnusable(
                f"Port {port} may not be opened by this user (ports below 1024 belong to the system). "
                "Use --port with a number from 1024 to 65535."
            ) from None
        raise AddressUnusable(
            f"This machine cannot listen at {host} ({error.strerror}). Use 127.0.0.1 for this machine only, "
            "0.0.0.0 for the network."
        ) from None
    return listener


def next_free(host: str, port: int, *, tries: int = 200) -> socket.socket | None:
    """A listening socket at the first free port above `port`, or None when there is none near."""
    for candidate in range(port + 1, min(port + 1 + tries, 65_536)):
        try:
            return listen(host, candidate)
        except AddressTaken:
            continue
    return None


def address_for_people(host: str, port: int) -> str:
    """The URL that is typed into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The limit on connections with an unfinished request, and which connection is closed beyond it."""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final, Protocol

MOST_OF_PEER: Final = 64
MOST_IN_ALL: Final = 512
BURST_SECONDS: Final = 1.0  # a connection counts only after this time: many clients that connect at once are no attack
CEILING: Final = 2048  # includes the connections that do not count yet

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class UnfinishedConnection(Protocol):
    """A connection."""

    def close_unfinished(self) -> None:
        """Close it now; it calls `remove` itself."""


class UnfinishedRequests:
    """Beyond the limit, the connection that has waited longest is closed: half-sent requests block no new client."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        """Connections from `trusted` networks have no limit per peer, since a proxy carries those of many clients."""
        self._trusted = trusted
        self._all: dict[
            UnfinishedConnection, float
        ] = {}  # since when (seconds of the event loop's clock), in this order
        self._by_peer: dict[str, dict[UnfinishedConnection, float]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def add(self, one: UnfinishedConnection, peer: str) -> None:
        at = asyncio.get_running_loop().time()
        self._all[one] = at
        self._by_peer.setdefault(peer, {})[one] = at
        if len(self._all) > CEILING:
            _longest_waiting(max(self._by_peer.values(), key=len)).close_unfinished()
        elif len(self._all) > MOST_IN_ALL or len(self._by_peer[peer]) > MOST_OF_PEER:
            self._close_excess(peer)

    def remove(self, one: UnfinishedConnection, peer: str) -> None:
        self._all.pop(one, None)
        ones = self._by_peer.get(peer, {})
        ones.pop(one, None)
        if not ones:
            self._by_peer.pop(peer, None)

    def _close_excess(self, *peers: str) -> None:
        """Close connections beyond the limits that have had BURST_SECONDS; check again when the others have."""
        before = asyncio.get_running_loop().time() - BURST_SECONDS
        over = [(self._all, MOST_IN_ALL)]
        over += [(self._by_peer[peer], MOST_OF_PEER) for peer in peers if not self._is_trusted(peer)]
        left = False
        for ones, most in over:
            while len(ones) > most and ones[_longest_waiting(ones)] <= before:
                _longest_waiting(ones).close_unfinished()
            left = left or len(ones) > most
        if left and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(BURST_SECONDS, self._close_all_excess)

    def _close_all_excess(self) -> None:
        self._sweep = None
        self._close_excess(*self._by_peer)

    def _is_trusted(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _longest_waiting(ones: dict[UnfinishedConnection, float]) -> UnfinishedConnection:
    return next(iter(ones))

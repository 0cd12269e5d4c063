"""Identifiers: a prefix, an underscore and a UUIDv7 in lower-case Crockford base32; they sort by creation time."""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE = re.compile(r"[a-z]{1,8}_[0-7][0-9a-hjkmnp-tv-z]{25}")


def make_uuid7(now_ns: int, randomness: int) -> int:
    """RFC 9562 UUIDv7 as an integer: 48 bits of milliseconds, then 12 bits of the fraction (244 ns), then 62 random."""
    milliseconds, rest_ns = divmod(now_ns, 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    version, variant = 7, 0b10
    return (
        (milliseconds & ((1 << 48) - 1)) << 80
        | version << 76
        | fraction << 64
        | variant << 62
        | (randomness & ((1 << 62) - 1))
    )


def encode_base32(value: int) -> str:
    """128 bits as 26 characters of lower-case Crockford base32, most significant first."""
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_id(prefix: str) -> str:
    """A fresh id such as `job_01jd…`."""
    return f"{prefix}_{encode_base32(make_uuid7(time.time_ns(), secrets.randbits(62)))}"


def is_id(text: str, prefix: str) -> bool:
    """Whether `text` has the shape of an id with this prefix (it may still belong to nothing)."""
    return text.startswith(f"{prefix}_") and _SHAPE.fullmatch(text) is not None

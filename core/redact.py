"""Removes secrets from logs and answers, found by shape (keys, passwords in URLs, signatures) and by name.

A secret of the settings is removed wherever it occurs, whatever its shape; see `register_secrets`.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretStr

_MASK: Final = "***"
_SHORTEST: Final = 8  # characters; a shorter secret may be a common word, whose removal would garble every line
_WORDS: Final = r"password|passwd|secret|secret_access_key|secret_key|api_?key|session_token|access_token"
_SIGNED: Final = r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid"
_END: Final = r"\s\"'\\,;&)}\]\x1b"  # where a value ends, in plain text, in JSON, in a repr, before a colour
_GAP: Final = r"\s{0,8}"
_NAMED: Final = rf"(?:{_WORDS}|authorization)\\?[\"']?{_GAP}[:=]{_GAP}(?:b(?=[\"']))?\\?[\"']?"

# Each begins with a fixed text: a pattern that could match at any position would take minutes over a long word.
_SHAPES: Final = (
    (re.compile(r"(bsn_[0-9a-z]{1,26}_)[0-9A-Za-z_-]{8,}"), r"\1" + _MASK),
    (re.compile(r"(://[^\s/:@\"'\\]*:)[^\s/\"'\\]+(?=@)"), r"\1" + _MASK),
    (re.compile(rf"([?&](?:{_SIGNED}|signature|sig|token|{_WORDS})=)[^{_END}#]+", re.IGNORECASE), r"\1" + _MASK),
    (re.compile(rf"\b(bearer|basic)(\s{{1,8}})(?=[^{_END}]{{12}})[^{_END}]+", re.IGNORECASE), r"\1\2" + _MASK),
    (re.compile(rf"({_NAMED})(?!(?:bearer|basic)\s)[^{_END}]+", re.IGNORECASE), r"\1" + _MASK),
)

_known: set[str] = set()


def redact_secrets(text: str) -> str:
    """The text without secrets."""
    for secret in sorted(_known, key=len, reverse=True):  # a secret may be part of a longer one
        text = text.replace(secret, _MASK)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def register_secrets(settings: BaseModel) -> None:
    """From now on, `redact_secrets` removes the secrets of these settings too."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            _known.update(secret for secret in _secret_parts(value.get_secret_value()) if len(secret) >= _SHORTEST)


def _json_strings(value: str) -> Iterable[str]:
    """The values of the fields of a JSON document whose names say that they are secret, and the document itself."""
    yield value
    yield from re.findall(rf'"(?:{_WORDS})"\s*:\s*"([^"]+)"', value, re.IGNORECASE)


def _secret_parts(value: str) -> Iterable[str]:
    """The secret parts of a setting: of a URL its password and its secret parameters, else the whole value."""
    if value.lstrip().startswith("{"):
        return set(_json_strings(value))
    if "://" not in value:
        return {value}
    try:
        parts = urlsplit(value)
    except ValueError:
        return {value}
    authority = parts.netloc.rpartition("@")[0]
    password = authority.partition(":")[2]
    found = [text for name, text in parse_qsl(parts.query) if re.search(_WORDS, name, re.IGNORECASE)]
    return {password, unquote(password), *found}

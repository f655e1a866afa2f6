"""Read and check this machine's settings for requests: proxies and certificates."""

import ipaddress
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from source_truto_segments.truto.errors import UserError
from source_truto_segments.truto.excerpts import SECRETS

# In the order in which requests reads them.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


class MachineError(UserError):
    """An invalid setting of this machine; its message names the setting, not the value."""


def connection_settings(session: requests.Session, url: str) -> dict[str, Any]:
    """Return the proxies and certificates for requests to a URL, as `Session.send` takes them.

    Requests to this machine itself never use a proxy.

    Raises:
        MachineError: If a proxy's address cannot be parsed, or if the certificates of an
            environment variable cannot be loaded.
    """
    settings: dict[str, Any] = {}
    settings.update(session.merge_environment_settings(url, {}, None, None, None))
    if is_loopback(urlsplit(url).hostname or ""):
        return {**settings, "proxies": {}}
    for scheme, proxy in settings["proxies"].items():
        if scheme in ("https", "all"):
            _check_proxy(scheme, proxy)
    if isinstance(settings["verify"], str):
        _check_certificates(settings["verify"])
    return settings


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_proxy(scheme: str, proxy: str) -> None:
    try:
        parts = parse_url(proxy if "://" in proxy else f"http://{proxy}")  # ignore-https-check
    except LocationParseError:
        parts = parse_url("")
    for secret in (parts.auth or "").split(":"):
        SECRETS.add(unquote(secret))
    if not parts.host or parts.scheme not in _PROXY_SCHEMES:
        raise MachineError(
            f"The proxy of this machine, set by {scheme.upper()}_PROXY, has no valid address. Set "
            "the variable to one such as proxy.example.com:3128, or unset it."
        )


def _check_certificates(path: str) -> None:
    name = next((name for name in _CA_VARIABLES if os.environ.get(name) == path), _CA_VARIABLES[0])
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
    except OSError as error:
        raise MachineError(
            f"The certificates of this machine, set by {name}, cannot be loaded: "
            f"{error.strerror or error}. Set the variable to a file of certificates in PEM format, "
            "or unset it."
        ) from None

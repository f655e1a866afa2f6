"""Read and check this machine's settings for requests: proxies and certificates."""

import ipaddress
import os
import re
import ssl
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from source_truto_segments.truto.errors import UserError
from source_truto_segments.truto.excerpts import SECRETS, excerpt

# In the order in which requests reads them.
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# OpenSSL finds a certificate in a folder only by its hash, as the name of its file.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+", re.IGNORECASE)


class MachineError(UserError):
    """An invalid setting of this machine; its message never shows a proxy's user or password."""


class Proxy(NamedTuple):
    """The proxy for requests to a URL.

    Attributes:
        variable: The environment variable that sets it.
        address: Its host and port, without user and password.
    """

    variable: str
    address: str


def connection_settings(session: requests.Session, url: str) -> tuple[dict[str, Any], Proxy | None]:
    """Return how requests to a URL connect.

    Requests to this machine itself never use a proxy.

    Returns:
        The proxies and certificates, as `Session.send` takes them, and the proxy that it uses.

    Raises:
        MachineError: If the proxy has no valid address or is a SOCKS proxy, or if the certificates
            of an environment variable cannot be loaded.
    """
    settings: dict[str, Any] = {}
    settings.update(session.merge_environment_settings(url, {}, None, None, None))
    if is_loopback(urlsplit(url).hostname or ""):
        return {**settings, "proxies": {}}, None
    proxy = _proxy_for(url, settings["proxies"])
    if isinstance(settings["verify"], str):
        _check_certificates(settings["verify"])
    return settings, proxy


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxy_for(url: str, proxies: MutableMapping[str, str]) -> Proxy | None:
    """Return the proxy that requests uses for a URL, and mask its user and password from now on.

    Add the scheme if it is missing: of user:password@host, requests would take the user for it.
    """
    scheme = next((name for name in (urlsplit(url).scheme, "all") if name in proxies), None)
    if scheme is None:
        return None
    variable = f"{scheme}_proxy" if f"{scheme}_proxy" in os.environ else f"{scheme.upper()}_PROXY"
    if "://" not in proxies[scheme]:
        proxies[scheme] = f"http://{proxies[scheme]}"  # ignore-https-check
    proxy = proxies[scheme]
    try:
        parts = parse_url(proxy)
    except LocationParseError:
        parts = parse_url("")
    login = unquote(parts.auth or "")
    for secret in (parts.auth or "").split(":"):
        SECRETS.add(unquote(secret))
    instead = "Set the variable to one such as proxy.example.com:3128, or unset it."
    if "@" in proxy and not parts.auth:
        # The address would be a part of the login.
        raise MachineError(
            f"The proxy of this machine, set by {variable}, has no valid address. In its user and "
            "password, write %23 for #, %2F for /, %3A for :, %3F for ? and %40 for @."
        )
    if not _has_form(login, "latin-1"):
        raise MachineError(
            f"The proxy of this machine, set by {variable}, has a user or password with characters "
            "that HTTP cannot send. Whoever runs the proxy must give you another login."
        )
    if parts.host and (parts.scheme or "").startswith("socks"):
        raise MachineError(
            f"The proxy of this machine, set by {variable}, is a SOCKS proxy, but the connector "
            f"supports only HTTP proxies. {instead}"
        )
    has_host = bool(parts.host) and _has_form(str(parts.host), "idna")
    if not has_host or parts.scheme not in ("http", "https"):
        raise MachineError(
            f"The proxy of this machine, set by {variable}, has no valid address. {instead}"
        )
    return Proxy(variable, str(parts.netloc))


def _has_form(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeError:
        return False
    return True


def _check_certificates(path: str) -> None:
    name = next((name for name in _CA_VARIABLES if os.environ.get(name) == path), _CA_VARIABLES[0])
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not Path(path).is_dir():
            context.load_verify_locations(cafile=path)
            return
        if any(_HASHED_NAME.fullmatch(entry.name) for entry in Path(path).iterdir()):
            return
        reason = "the folder has no certificate under its hash, as `openssl rehash` names the files"
    except ssl.SSLError:
        reason = "the file has no valid certificates in PEM format"
    except OSError as error:
        reason = error.strerror or str(error)
    raise MachineError(
        f"The certificates of this machine, set by {name}, cannot be loaded: {excerpt(path)}: "
        f"{reason}. Set the variable to a file of certificates in PEM format, or unset it."
    )

"""An HTTP adapter with a deadline: the whole response body before it, or an error."""

import io
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3 import HTTPResponse
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError, SSLError

# Seconds to connect, and seconds without a byte of the response. Truto waits for the vendor, which
# can take long; a response that takes a minute does not come at all.
TIMEOUT = (10.0, 60.0)

# Seconds for a whole response. The read timeout limits only the time between two bytes: a response
# that comes byte by byte could block its account, and with it the sync, for days.
RESPONSE_TIMEOUT = 300.0

_CHUNK_SIZE = 64 * 1024


class DeadlineAdapter(HTTPAdapter):
    """Reads the whole body of each response, within RESPONSE_TIMEOUT, before it returns it."""

    @override
    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        deadline = time.monotonic() + RESPONSE_TIMEOUT
        response = super().send(request, *args, **{**kwargs, "stream": True})
        try:
            response.raw = io.BytesIO(_body(response.raw, deadline))
        except ProtocolError as error:
            raise requests.exceptions.ChunkedEncodingError(error, request=request) from error
        except DecodeError as error:
            raise requests.exceptions.ContentDecodingError(error, request=request) from error
        except (ReadTimeoutError, TimeoutError) as error:
            raise requests.ReadTimeout(error, request=request) from error
        except SSLError as error:
            raise requests.exceptions.SSLError(error, request=request) from error
        return response


def _body(raw: HTTPResponse, deadline: float) -> bytes:
    """Return the bytes of a body, decoded.

    Raises:
        TimeoutError: If it is not complete before the deadline, a time of the monotonic clock.
    """
    try:
        return b"".join(_iter_chunks(raw, deadline))
    except BaseException:
        # The rest of it must not be taken for the response to the next request.
        raw.close()
        raise


def _iter_chunks(raw: HTTPResponse, deadline: float) -> Iterator[bytes]:
    # read1 returns the bytes that have arrived, and blocks only while there are none.
    while chunk := raw.read1(_CHUNK_SIZE, decode_content=True):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the response was not complete after {RESPONSE_TIMEOUT:.0f} s")
        yield chunk

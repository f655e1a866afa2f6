"""The way of an answer into the process: whole and in time, or not at all."""

import io
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError, SSLError

# The time between two bytes is limited already. Without a limit for all of them, an answer that
# comes byte by byte would hold up its account, and with it the sync, for days.
LONGEST_ANSWER_SECONDS = 300.0

_BLOCK = 64 * 1024


class WholeAnswers(HTTPAdapter):
    """Takes in the whole body of each answer before it hands the answer on."""

    def send(  # noqa: D102 - requests'
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        deadline = time.monotonic() + LONGEST_ANSWER_SECONDS
        response = super().send(request, *args, **{**kwargs, "stream": True})
        try:
            response.raw = io.BytesIO(_body(response.raw, deadline))
        except ProtocolError as failure:
            raise requests.exceptions.ChunkedEncodingError(failure, request=request) from failure
        except DecodeError as failure:
            raise requests.exceptions.ContentDecodingError(failure, request=request) from failure
        except (ReadTimeoutError, TimeoutError) as failure:
            raise requests.ReadTimeout(failure, request=request) from failure
        except SSLError as failure:
            raise requests.exceptions.SSLError(failure, request=request) from failure
        return response


def _body(raw: HTTPResponse, deadline: float) -> bytes:
    """The bytes of a body, decoded.

    Raises:
        TimeoutError: If not all of them came before the deadline, a time of the monotonic clock.
    """
    try:
        return b"".join(_parts(raw, deadline))
    except BaseException:
        # What is left of it must not be taken for the answer to the next request.
        raw.close()
        raise


def _parts(raw: HTTPResponse, deadline: float) -> Iterator[bytes]:
    # It returns what is there and waits for the next byte only where nothing is.
    while part := raw.read1(_BLOCK, decode_content=True):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer was not whole after {LONGEST_ANSWER_SECONDS:.0f} s")
        yield part

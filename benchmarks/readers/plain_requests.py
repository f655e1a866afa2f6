"""The shortest script that does the job: a loop around `requests` that prints RECORD lines.

It handles no state, no types, no broken responses and no pagination loops, and only waits if a 429
asks for it. It shows the least that Python needs for the pages themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import requests

_TIMEOUT = (10, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    config = json.loads(parser.parse_args().config.read_text())
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {config['token']}"
    url = f"{config['api_url']}/unified/marketing-automation/segments"
    for account_id in config["ids"]:
        params = {"integrated_account_id": account_id}
        while True:
            page = _page(session, url, params)
            now = time.time_ns() // 1_000_000
            for record in page["result"]:
                record["integrated_account_id"] = account_id
                message = {"stream": "segments", "data": record, "emitted_at": now}
                sys.stdout.write(json.dumps({"type": "RECORD", "record": message}) + "\n")
            if not page["next_cursor"]:
                break
            params["next_cursor"] = page["next_cursor"]


def _page(session: requests.Session, url: str, params: dict[str, str]) -> dict[str, Any]:
    while True:
        response = session.get(url, params=params, timeout=_TIMEOUT)
        if response.status_code != requests.codes.too_many_requests:
            break
        time.sleep(float(response.headers["Retry-After"]))
    response.raise_for_status()
    page: dict[str, Any] = response.json()
    return page


if __name__ == "__main__":
    main()

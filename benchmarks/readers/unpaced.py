"""Run the connector's command without pacing for Truto's limits, to measure its own work.

Truto allows any reader 50 requests in 10 s for one account, so 1,000 pages would mean 200 s of
waiting.
"""

from source_truto_segments.run import run
from source_truto_segments.truto import rate_limiter

rate_limiter.TOKEN_LIMIT = rate_limiter.ACCOUNT_LIMIT = 10**9

if __name__ == "__main__":
    run()

"""The connector's command without the pace of Truto's limits: what is measured is its own work.

One account is read at 50 requests in 10 s at most, whoever reads it; 1,000 pages would take 200 s
of waiting.
"""

from source_truto_segments.run import run
from source_truto_segments.truto import rate_limiter

rate_limiter.TOKEN_LIMIT = rate_limiter.ACCOUNT_LIMIT = 10**9

if __name__ == "__main__":
    run()

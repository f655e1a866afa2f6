"""A local Truto API with seven vendors, rate limits and failures, on a real socket.

with Sandbox(demo_environment()) as sandbox:
    requests.get(f"{sandbox.url}/unified/marketing-automation/segments", ...)
"""

from sandbox import faults, protocol, vendors
from sandbox.environment import CONTEXT_SECRET, DEFAULT_TOKEN, MISSING, Account, Environment
from sandbox.faults import Fault
from sandbox.limits import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT, Limit, VendorLimit
from sandbox.presets import demo_environment, large_environment
from sandbox.request import Request
from sandbox.server import Sandbox

__all__ = [
    "CONTEXT_SECRET",
    "DEFAULT_TOKEN",
    "MISSING",
    "TRUTO_ACCOUNT_LIMIT",
    "TRUTO_TOKEN_LIMIT",
    "Account",
    "Environment",
    "Fault",
    "Limit",
    "Request",
    "Sandbox",
    "VendorLimit",
    "demo_environment",
    "faults",
    "large_environment",
    "protocol",
    "vendors",
]

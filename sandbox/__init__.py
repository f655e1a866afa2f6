"""A local Truto API with seven vendors, rate limits and failures, on a real socket.

with Sandbox(demo_environment()) as sandbox:
    requests.get(f"{sandbox.url}/unified/marketing-automation/segments", ...)
"""

import sys

try:
    from sandbox import faults, protocol, vendors
    from sandbox.environment import CONTEXT_SECRET, DEFAULT_TOKEN, MISSING, Account, Environment
    from sandbox.faults import Fault
    from sandbox.limits import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT, Limit, VendorLimit
    from sandbox.presets import break_account, demo_environment, large_environment
    from sandbox.request import Request
    from sandbox.server import Sandbox
except ModuleNotFoundError as missing:
    # While `python -m sandbox` looks for the module to run, argv begins with -m.
    if sys.argv[:1] != ["-m"]:
        raise
    sys.exit(
        f"sandbox: the package {missing.name} is not installed. In the project's folder, "
        "`pip install -e '.[demo]'` installs what the sandbox needs."
    )

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
    "break_account",
    "demo_environment",
    "faults",
    "large_environment",
    "protocol",
    "vendors",
]

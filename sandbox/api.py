"""The API itself, which turns requests into responses without any network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sandbox import faults, responses
from sandbox.accounts import account_object, list_accounts
from sandbox.faults import Delivery
from sandbox.limits import SlidingWindow, VendorBudget, retry_headers
from sandbox.meta import meta
from sandbox.pages import list_page
from sandbox.vendors import workspace_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.environment import Account, Environment, Records
    from sandbox.request import Request
    from sandbox.responses import Response

_UNIFIED = frozenset({"segments", "workspaces", "meta"})


class Api:
    """Responds to the requests for an environment, and only counts them."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._token_window = SlidingWindow()
        self._account_windows: dict[str, SlidingWindow] = {}
        self._budgets: dict[str, VendorBudget] = {}
        self._pages_served: Counter[tuple[str, str | None]] = Counter()

    def handle(self, request: Request) -> tuple[Response, Delivery]:
        """Return the response to a request, and a delivery whose delay includes the latency."""
        account = self.environment.find(request.account_id) if request.account_id else None
        fault = faults.first_due(self.environment.faults, request)
        refusal = None if fault and fault.response else self._refusal(request, account)
        if fault is None and refusal is None and account is not None:
            fault = faults.first_due(account.faults, request)
        delivery = fault.delivery if fault else Delivery()
        if refusal is not None:
            response = refusal
        elif fault is not None and fault.response is not None:
            response = fault.response()
        else:
            response = self._respond(request, account)
            if account is not None and response.status == HTTPStatus.OK and delivery.is_complete:
                self._page_served(request, account)
        if self.environment.alter is not None:
            response = self.environment.alter(request, response)
        if fault is not None and fault.account_status is not None and account is not None:
            account.status = fault.account_status
        if response.immediate:
            return response, delivery
        return response, replace(delivery, delay=delivery.delay + self._latency(account))

    def _page_served(self, request: Request, account: Account) -> None:
        if request.kind == "segments" and account.on_page is not None:
            key = account.id, request.param("workspace[id]")
            self._pages_served[key] += 1
            account.on_page(account, self._pages_served[key])

    def _latency(self, account: Account | None) -> float:
        if account is None or account.latency is None:
            return self.environment.latency
        return account.latency

    def _refusal(self, request: Request, account: Account | None) -> Response | None:
        """Return Truto's refusal of a wrong token or of a request above a limit."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token.strip() != self.environment.token:
            return responses.truto_error(401, "Unauthorized")
        windows = [(self._token_window, self.environment.token_limit)]
        if account is not None and request.kind in _UNIFIED:
            window = self._account_windows.setdefault(account.id, SlidingWindow())
            windows.append((window, self.environment.account_limit))
        limited = [(window, limit) for window, limit in windows if limit is not None]
        if any(window.is_full(limit, request.at) for window, limit in limited):
            retry_after = retry_headers("seconds", self.environment.retry_after)
            return faults.truto_rate_limit_response(retry_after)
        for window, _ in limited:
            window.add(request.at)
        return None

    def _respond(self, request: Request, account: Account | None) -> Response:
        if request.kind == "other":
            return responses.truto_error(404, f"Cannot {request.method} {request.path}")
        if request.kind == "accounts":
            return list_accounts(request, self.environment)
        if not request.account_id:
            return faults.missing_parameters_response(["integrated_account_id"])
        if account is None:
            return responses.truto_error(404, "Integrated account not found")
        return self._respond_for(account, request)

    def _respond_for(self, account: Account, request: Request) -> Response:
        if request.kind == "account":
            return responses.ok(account_object(account))
        if request.kind == "meta":
            return responses.ok(meta(account))
        if account.status != "active" and not account.heals_on_request:
            return _inactive(account)
        response = self._from_vendor(request, account)
        if response.status == HTTPStatus.OK and account.heals_on_request:
            account.status = "active"
        return response

    def _from_vendor(self, request: Request, account: Account) -> Response:
        """Return the vendor's response, within its budget for the account."""
        limit = account.vendor_limit
        resource = _segments if request.kind == "segments" else _workspaces
        response = resource(request, account)
        # A request that Truto itself refuses does not reach the vendor.
        if limit is None or response.immediate:
            return response
        budget = self._budgets.setdefault(account.id, VendorBudget())
        if not budget.spend(limit, request.at):
            wait = budget.seconds_left(limit, request.at)
            response = faults.vendor_rate_limit_response(retry_headers(limit.retry_after, wait))
        if not limit.announce:
            return response
        announced = budget.headers(limit, request.at)
        return replace(response, headers={**announced, **response.headers})


def _inactive(account: Account) -> Response:
    if account.status == "needs_reauth":
        return faults.credentials_refused_response()
    return responses.truto_error(
        400, f"Integrated account is not active, its status is {account.status}"
    )


def _segments(request: Request, account: Account) -> Response:
    if not account.supports_segments:
        return faults.not_supported_response("segments", account.vendor)
    workspace = request.param("workspace[id]")
    if account.needs_workspace and not workspace:
        return faults.missing_parameters_response(["workspace[id]"])
    records = account.segments
    # An account without workspaces silently ignores the parameter.
    if workspace and account.has_workspaces and (account.needs_workspace or account.workspaces):
        known = _workspaces_of(account)
        if workspace not in known:
            reason = {"errors": [{"status": 404, "detail": f"There is no workspace {workspace}"}]}
            return responses.vendor_error(404, "", raw_response=reason)
        records = known[workspace]
    error = account.integration.no_segments_error
    if error is not None and not len(records) and not request.param("next_cursor"):
        return responses.vendor_error(404, "", raw_response=error)
    scope = f"{account.id}/segments/{workspace or ''}"
    return list_page(request, account, records, scope, looping=True)


def _workspaces(request: Request, account: Account) -> Response:
    if not account.has_workspaces:
        return faults.not_supported_response("workspaces", account.vendor)
    records = [_workspace(account, workspace) for workspace in _workspaces_of(account)]
    return list_page(request, account, records, f"{account.id}/workspaces", looping=False)


def _workspaces_of(account: Account) -> Mapping[str, Records]:
    """Return the workspaces of an account, or one for its segments if it needs some."""
    if account.needs_workspace and account.segments and not account.workspaces:
        return {f"pub_{account.id}": account.segments}
    return account.workspaces


def _workspace(account: Account, workspace_id: str) -> dict[str, Any]:
    name = account.workspace_names.get(workspace_id, workspace_id)
    created_at, remote_data = workspace_data(account.vendor, workspace_id, name)
    return {
        "id": workspace_id,
        "name": name,
        "description": None,
        "created_at": created_at,
        "updated_at": None,
        "remote_data": remote_data,
    }

"""The API itself: from a request to the answer, without any network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sandbox import answers, cursors, faults
from sandbox.cursors import Position
from sandbox.faults import Delivery
from sandbox.limits import SlidingWindow, VendorBudget, retry_headers
from sandbox.meta import meta
from sandbox.pages import asked_limit, cut_page, list_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.answers import Answer
    from sandbox.environment import Account, Environment, Records
    from sandbox.request import Request

_UNIFIED = frozenset({"segments", "workspaces", "meta"})


@dataclass(frozen=True)
class Outcome:
    """What becomes of a request.

    Attributes:
        answer: The answer.
        delivery: How it travels.
        latency: Seconds before it is sent, besides what the delivery adds.
    """

    answer: Answer
    delivery: Delivery
    latency: float


class Api:
    """Answers requests for an environment, and remembers only how many there were lately."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._token_window = SlidingWindow()
        self._account_windows: dict[str, SlidingWindow] = {}
        self._budgets: dict[str, VendorBudget] = {}

    def handle(self, request: Request) -> Outcome:
        """Answer one request, at the moment of its arrival."""
        account = self.environment.find(request.account_id) if request.account_id else None
        fault = faults.first_due(self.environment.faults, request)
        refusal = None if fault and fault.answer else self._refusal(request, account)
        if fault is None and refusal is None and account is not None:
            fault = faults.first_due(account.faults, request)
        if refusal is not None:
            answer = refusal
        elif fault is not None and fault.answer is not None:
            answer = fault.answer()
        else:
            answer = self._answer(request, account)
        if fault is not None and fault.account_status is not None and account is not None:
            account.status = fault.account_status
        return Outcome(
            answer,
            fault.delivery if fault else Delivery(),
            0.0 if answer.at_once else self._latency(account),
        )

    def _latency(self, account: Account | None) -> float:
        if account is None or account.latency is None:
            return self.environment.latency
        return account.latency

    def _refusal(self, request: Request, account: Account | None) -> Answer | None:
        """Truto's refusal of a token that is wrong, or of one request too many."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token.strip() != self.environment.token:
            return answers.truto_error(401, "Unauthorized")
        windows = [(self._token_window, self.environment.token_limit)]
        if account is not None and request.kind in _UNIFIED:
            window = self._account_windows.setdefault(account.id, SlidingWindow())
            windows.append((window, self.environment.account_limit))
        limited = [(window, limit) for window, limit in windows if limit is not None]
        if any(window.is_full(limit, request.at) for window, limit in limited):
            retry_after = retry_headers("seconds", self.environment.retry_after)
            return faults.truto_rate_limit_answer(retry_after)
        for window, _ in limited:
            window.add(request.at)
        return None

    def _answer(self, request: Request, account: Account | None) -> Answer:
        if request.kind == "other":
            return answers.truto_error(404, f"Cannot {request.method} {request.path}")
        if request.kind == "accounts":
            return self._accounts(request)
        if not request.account_id:
            return faults.missing_parameters_answer(["integrated_account_id"])
        if account is None:
            return answers.truto_error(404, "Integrated account not found")
        return self._answer_for(account, request)

    def _answer_for(self, account: Account, request: Request) -> Answer:
        if request.kind == "account":
            return answers.ok(_account_entry(account))
        if request.kind == "meta":
            return answers.ok(meta(account))
        resource = _segments if request.kind == "segments" else _workspaces
        return _unusable(account) or self._from_vendor(request, account, resource)

    def _accounts(self, request: Request) -> Answer:
        environment = self.environment
        limit, refusal = asked_limit(request)
        scope = "accounts"
        cursor = request.param("next_cursor")
        position = cursors.read(cursor, scope) if cursor else Position()
        if refusal is not None:
            return refusal
        if position is None:
            return answers.truto_error(400, "Invalid next_cursor")
        size = min(limit or environment.list_page_size, environment.list_page_size)
        page, following = cut_page(environment.accounts, position.offset, size, _matches(request))
        return answers.ok(
            {
                environment.list_key: [_account_entry(account) for account in page],
                "next_cursor": (
                    None if following is None else cursors.write(Position(following), scope)
                ),
                "limit": size,
            }
        )

    def _from_vendor(
        self,
        request: Request,
        account: Account,
        resource: Callable[[Request, Account], Answer],
    ) -> Answer:
        """What the vendor answers, within the budget that it gives the account."""
        limit = account.vendor_limit
        answer = resource(request, account)
        # What Truto refuses by itself costs nothing at the vendor.
        if limit is None or answer.at_once:
            return answer
        budget = self._budgets.setdefault(account.id, VendorBudget())
        if not budget.spend(limit, request.at):
            wait = budget.seconds_left(limit, request.at)
            answer = faults.vendor_rate_limit_answer(retry_headers(limit.retry_after, wait))
        if not limit.announce:
            return answer
        announced = budget.headers(limit, request.at)
        return replace(answer, headers={**announced, **answer.headers})


def _unusable(account: Account) -> Answer | None:
    """The refusal of an account that is not active."""
    if account.status == "active":
        return None
    if account.status == "needs_reauth":
        return faults.credentials_refused_answer()
    return answers.truto_error(
        400, f"Integrated account is not active, its status is {account.status}"
    )


def _segments(request: Request, account: Account) -> Answer:
    workspace = request.param("workspace[id]")
    if account.needs_workspace and not workspace:
        return faults.missing_parameters_answer(["workspace[id]"])
    records = account.segments
    # Where there are no workspaces the parameter is ignored without a word.
    if workspace and account.has_workspaces and (account.needs_workspace or account.workspaces):
        known = _workspaces_of(account)
        if workspace not in known:
            reason = {"errors": [{"status": 404, "detail": f"There is no workspace {workspace}"}]}
            return answers.vendor_error(404, "", raw_response=reason)
        records = known[workspace]
    scope = f"{account.id}/segments/{workspace or ''}"
    return list_page(request, account, records, scope, looping=True)


def _workspaces(request: Request, account: Account) -> Answer:
    if not account.has_workspaces:
        return answers.truto_error(
            400, f"Resource workspaces is not supported by the integration {account.vendor}"
        )
    records = [_workspace(account, workspace) for workspace in _workspaces_of(account)]
    return list_page(request, account, records, f"{account.id}/workspaces", looping=False)


def _workspaces_of(account: Account) -> Mapping[str, Records]:
    """The workspaces of an account; one that needs them but names none has a single one."""
    if account.needs_workspace and account.segments and not account.workspaces:
        return {f"pub_{account.id}": account.segments}
    return account.workspaces


def _workspace(account: Account, workspace: str) -> dict[str, Any]:
    name = account.workspace_names.get(workspace, workspace)
    return {
        "id": workspace,
        "name": name,
        "description": None,
        "created_at": account.created_at,
        "updated_at": None,
        "remote_data": {"id": workspace, "name": name},
    }


def _matches(request: Request) -> Callable[[Account], bool]:
    statuses = request.params("status")
    vendors = request.params("integration.name")
    tenants = request.params("tenant_id")

    def matches(account: Account) -> bool:
        return (
            (not statuses or account.status in statuses)
            and (not vendors or account.vendor in vendors)
            and (not tenants or account.tenant_id in tenants)
        )

    return matches


def _account_entry(account: Account) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": account.id,
        "tenant_id": account.tenant_id,
        "status": account.status,
        "is_sandbox": account.is_sandbox,
        "integration": {"name": account.vendor},
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }
    if account.last_error is not None:
        entry["last_error"] = account.last_error
    return entry

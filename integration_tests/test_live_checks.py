"""Each fact holds for the sandbox, and fails alone for a sandbox that differs only in it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from integration_tests.support import ACCOUNT_ID, account, id_of, raw_server, texts
from live_checks import __main__ as command
from live_checks import api as live_api
from live_checks.account import Account as LiveAccount
from live_checks.api import MAX_REQUESTS, PAUSE, Api
from live_checks.checks import FACTS
from live_checks.facts import Outcome, Seen
from live_checks.report import WIDTH, markdown, table
from sandbox import (
    CONTEXT_SECRET,
    Account,
    Environment,
    Request,
    Sandbox,
    VendorLimit,
    demo_environment,
    faults,
    vendors,
)
from sandbox.responses import Response, encode, truto_error, vendor_error

HOLDS, DIFFERS, UNSEEN = Outcome
NAMES = [fact.name for fact in FACTS]

Alter = Callable[[Request, Response], Response]


def see(sandbox: Sandbox, account_id: str = ACCOUNT_ID) -> dict[str, Seen]:
    """Check every fact, and that the report contains nothing that the accounts hold."""
    api = Api(sandbox.url, sandbox.environment.token, sleep=lambda _: None)
    results = command.see_all(LiveAccount(api, account_id))
    written = f"{table(results)}\n{markdown(results, [])}"
    assert [secret for secret in secrets(sandbox.environment) if secret in written] == []
    assert {request.method for request in sandbox.requests} <= {"GET"}
    assert len(sandbox.requests) == api.count <= MAX_REQUESTS
    return {fact.name: seen for fact, seen in results}


def secrets(environment: Environment) -> set[str]:
    """Return an environment's texts that must appear nowhere: all except single words."""
    held: list[Any] = [environment.token, CONTEXT_SECRET]
    for each in environment.accounts:
        held += [each.id, each.tenant_id, list(each.segments), each.workspaces]
        held += [each.workspace_names, each.context]
    return {text for text in texts(held) if len(text) > 7 and re.search(r"[\d ]", text)}


def differing(seen: Mapping[str, Seen]) -> set[str]:
    return {name for name, each in seen.items() if each.outcome is DIFFERS}


# --- a sandbox that is as documented --------------------------------------------------------------

# Facts that cannot be seen with a vendor: Truto fills no such field, the vendor has no workspaces,
# no pages or no documented maximum, or no page size is requested. Further tests use other accounts
# for the facts that none of these shows.
NEVER = {"no_segments", "budget_headers"}
WITHOUT_WORKSPACES, WITH_WORKSPACES = {"workspaces"}, {"not_supported"}
UNSEEN_OF = {
    "activecampaign": WITHOUT_WORKSPACES
    | {"field_description", "field_status", "field_is_starred", "field_last_calculated_at"},
    "beehiiv": WITH_WORKSPACES
    | {"field_description", "field_is_starred", "field_created_at", "field_updated_at"},
    "brevo": WITH_WORKSPACES
    | {"workspaces", "field_description", "field_status", "field_is_starred"}
    | {"field_created_at", "field_last_calculated_at"},
    "customerio": WITH_WORKSPACES
    | {"workspaces", "cursor_sent_back", "documented_page_size", "limit_above_maximum"}
    | {"field_is_starred", "field_created_at", "field_updated_at", "field_last_calculated_at"},
    "flodesk": WITHOUT_WORKSPACES
    | {"field_description", "field_status", "field_is_starred"}
    | {"field_updated_at", "field_last_calculated_at"},
    "klaviyo": WITHOUT_WORKSPACES | {"documented_page_size", "field_last_calculated_at"},
    "mailerlite": WITHOUT_WORKSPACES
    | {"limit_above_maximum", "field_description", "field_status", "field_is_starred"}
    | {"field_updated_at", "field_last_calculated_at"},
}


@pytest.mark.parametrize("vendor", UNSEEN_OF)
def test_each_vendor(vendor: str) -> None:
    """With each vendor, every fact holds except those that it cannot show."""
    with Sandbox(demo_environment()) as sandbox:
        ids = {each.vendor: each.id for each in sandbox.environment.accounts}
        seen = see(sandbox, ids[vendor])

    outcomes = {name: each.outcome for name, each in seen.items()}
    assert outcomes == {
        name: UNSEEN if name in UNSEEN_OF[vendor] | NEVER else HOLDS for name in NAMES
    }, seen


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("no_segments", account("flodesk", 0)),
        ("no_segments", account("activecampaign", 0)),
        ("budget_headers", account(vendor_limit=VendorLimit(1_000, 60.0))),
        (
            "budget_headers",
            account(vendor_limit=VendorLimit(1_000, 60.0, retry_after="ratelimit-reset-epoch")),
        ),
        ("workspaces", account("brevo", workspaces={"w1": (), "w2": ()})),
        ("end_of_list", account(last_cursor="")),
        ("end_of_list", account(empty_pages=2)),
        ("cursor_sent_back", account(cursor_style="special")),
        ("cursor_sent_back", account(cursor_style="long")),
        ("limit", account("flodesk", 2)),
        ("limit_above_maximum", account("activecampaign", 150)),
        ("same_values", account(count=300)),
        ("account_object", Account(ACCOUNT_ID, "hubspot", vendors.segments("brevo", 12))),
    ],
)
def test_another_account(serve: Callable[..., Sandbox], name: str, held: Account) -> None:
    """With another account, the fact holds and none differs."""
    seen = see(serve(held))

    assert seen[name].outcome is HOLDS, seen[name]
    assert differing(seen) == set()


def test_seven_vendors() -> None:
    """Each fact, except those in NEVER, holds for at least one of the seven vendors."""
    assert set.intersection(*UNSEEN_OF.values()) == set()
    assert set().union(*UNSEEN_OF.values()) | NEVER <= set(NAMES)


# --- a sandbox that differs in one fact -----------------------------------------------------------


@dataclass
class Different:
    """A sandbox that differs: its first account, and how it changes responses."""

    account: Account
    alter: Alter | None = None


class IgnoresLimit(Account):
    def page_size(self, limit: int | None) -> int | None:
        del limit
        return super().page_size(None)


def body(kind: str, change: Callable[[Any], None], **params: str | None) -> Alter:
    """Change the JSON of good responses of a kind, to requests with these parameters."""

    def alter(request: Request, response: Response) -> Response:
        fits = all(request.param(PARAMS.get(name, name)) == params[name] for name in params)
        if request.kind != kind or response.status != 200 or not fits:
            return response
        content = json.loads(response.body)
        change(content)
        return replace(response, body=encode(content))

    return alter


PARAMS = {
    "cursor": "next_cursor",
    "name": "integration.name",
    "tag": "tags[id]",
    "exclude": "truto_exclude_fields[]",
    "without_data": "truto_ignore_remote_data",
}


def instead(response: Response, **params: str | None) -> Alter:
    """Send another response to requests for segments with these parameters."""

    def alter(request: Request, normal: Response) -> Response:
        fits = all(request.param(PARAMS.get(name, name)) == params[name] for name in params)
        return response if request.kind == "segments" and fits else normal

    return alter


def status(old: int, new: Response) -> Alter:
    """Send another response in place of each that has this status."""
    return lambda _, response: new if response.status == old else response


def on_second_read(change: Callable[[list[Any]], None]) -> Alter:
    """Change the first page when it is requested again."""
    reads: list[Request] = []

    def alter(request: Request, response: Response) -> Response:
        if request.kind == "segments" and [name for name, _ in request.query] == [
            "integrated_account_id"
        ]:
            reads.append(request)
        if len(reads) != 2 or reads[-1] != request:
            return response
        content = json.loads(response.body)
        change(content["result"])
        return replace(response, body=encode(content))

    return alter


def with_field(name: str, value: Any, vendor: str = "klaviyo") -> Account:
    segments = vendors.segments(vendor, 25)
    segments[3] = {**segments[3], name: value}
    return account(vendor, segments=segments)


def _set(**fields: Any) -> Callable[[Any], None]:
    return lambda content: content.update(fields)


def _entries(**fields: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for entry in content["result"]:
            entry.update(fields)

    return change


def _number_ids(segments: list[Any]) -> list[Any]:
    return [{**segment, "id": int(segment["id"])} for segment in segments]


REFUSED = vendor_error(400, "", raw_response={"code": "out_of_range"})
OTHER_ENTRY = {"id": id_of(7), "status": "active", "integration": {"name": "brevo"}}
HEADERS = {"ratelimit-limit": "a lot", "ratelimit-remaining": "9", "ratelimit-reset": "9"}

DIFFERENT: dict[str, list[Different]] = {
    "account_object": [
        Different(account(), body("account", _set(id=id_of(7)))),
        Different(account(), body("account", _set(created_at="12/31/2024"))),
        Different(account(), body("account", _set(status=None), limit=None)),
    ],
    "accounts_list": [
        Different(account(), body("accounts", _entries(status=None), limit="100", status=None)),
    ],
    "accounts_limit": [
        Different(
            account(), body("accounts", lambda c: c["result"].append(OTHER_ENTRY), limit="1")
        ),
        Different(account(), body("accounts", _set(next_cursor=None), limit="1", next_cursor=None)),
        Different(account(), body("accounts", _entries(id=id_of(7)), limit="1")),
    ],
    "filter_status": [
        Different(
            account(),
            body("accounts", lambda c: c["result"].append(OTHER_ENTRY), status="needs_reauth"),
        ),
        Different(account(), body("accounts", lambda c: c["result"].clear(), status="active")),
    ],
    "filter_integration_name": [
        Different(
            account("brevo"),
            body("accounts", lambda c: c["result"].append(OTHER_ENTRY), name="activecampaign"),
        ),
    ],
    "filter_tenant_id": [
        Different(
            account(tenant_id="tenant-17"),
            body(
                "accounts",
                lambda c: c["result"].append({**OTHER_ENTRY, "tenant_id": "tenant-17"}),
                tenant_id="00000000-0000-4000-8000-000000000000",
            ),
        ),
    ],
    "workspace_required": [Different(account("brevo", requires_workspace=True))],
    "envelope": [Different(account(form="keyed")), Different(account(count=1, form="bare"))],
    "no_segments": [
        Different(
            account("flodesk", 0, faults=[faults.vendor_not_found(kind="segments", times=None)])
        ),
    ],
    "end_of_list": [Different(account(), body("segments", lambda c: _end(c, 0)))],
    "cursor_sent_back": [
        Different(account(cursors_expire=True)),
        Different(account(last_cursor="the end")),
    ],
    "cursor_refused": [
        Different(account(), instead(truto_error(500, "Oops"), cursor="not-a-cursor")),
        Different(account(), instead(Response(200, b'{"result": []}'), cursor="not-a-cursor")),
    ],
    "limit": [Different(IgnoresLimit(ACCOUNT_ID, "klaviyo", vendors.segments("klaviyo", 25)))],
    "documented_page_size": [
        Different(account("flodesk", 120, max_page_size=50)),
        Different(account("flodesk", 30), instead(REFUSED, limit="100")),
        Different(
            account("flodesk", 30), body("segments", lambda c: c["result"].pop(), limit="100")
        ),
    ],
    "limit_above_maximum": [
        Different(account(), instead(truto_error(500, "Oops"), limit="11")),
        Different(
            account(count=15), instead(Response(200, encode({"result": [{"id": "a"}]})), limit="11")
        ),
    ],
    "partial_response": [Different(account(partial=True))],
    "same_order": [
        Different(account(), on_second_read(lambda result: result.reverse())),
        Different(account(), on_second_read(lambda result: result.pop())),
    ],
    "same_values": [
        Different(account(), on_second_read(lambda result: result[2].update(remote_data={}))),
        Different(account(), on_second_read(lambda result: result[2].update(name="B"))),
    ],
    "field_id": [
        Different(account("brevo", segments=_number_ids(vendors.segments("brevo", 12)))),
        Different(with_field("id", None)),
    ],
    "field_name": [Different(with_field("name", 5))],
    "field_description": [Different(with_field("description", ["secret words"]))],
    "field_status": [Different(with_field("status", "quite archived"))],
    "field_is_starred": [Different(with_field("is_starred", "yes"))],
    "field_created_at": [Different(with_field("created_at", "12/31/2024"))],
    "field_updated_at": [Different(with_field("updated_at", "last Tuesday"))],
    "field_last_calculated_at": [Different(with_field("last_calculated_at", "1 h ago"))],
    "field_remote_data": [Different(with_field("remote_data", "{}", "brevo"))],
    "ignore_remote_data": [
        Different(account(), body("segments", _entries(remote_data={}), without_data="true")),
    ],
    "exclude_fields": [
        Different(account(), body("segments", _entries(status=None), exclude="name"))
    ],
    "tag_filter": [
        Different(
            account(),
            body(
                "segments",
                lambda c: c["result"].append({"id": "a"}),
                tag="00000000-0000-4000-8000-000000000000",
            ),
        ),
        Different(account("flodesk"), instead(REFUSED, tag="00000000-0000-4000-8000-000000000000")),
    ],
    "budget_headers": [
        Different(account(), lambda _, response: replace(response, headers=HEADERS)),
    ],
    "wrong_token": [
        Different(account(), status(401, truto_error(403, "Forbidden"))),
        Different(account(), status(401, Response(401, b"Unauthorized", {}, "text/plain"))),
    ],
    "unknown_account": [
        Different(account(), status(404, truto_error(400, "Bad request"))),
        Different(account(), status(404, vendor_error(404, "", raw_response=""))),
    ],
    "not_supported": [
        Different(account(faults=[faults.bad_request(kind="workspaces", times=None)])),
        Different(account(faults=[faults.account_not_found(kind="workspaces", times=None)])),
    ],
    "workspaces": [
        Different(account("brevo", workspaces={"w1": ()}), body("workspaces", _entries(name=None))),
    ],
    "model": [
        Different(account(), body("meta", _set(schema={"fields": []}))),
        Different(account(), body("meta", _set(schema={"properties": {"id": "string"}}))),
    ],
}


def _end(content: dict[str, Any], cursor: Any) -> None:
    if content["next_cursor"] is None:
        content["next_cursor"] = cursor


@pytest.mark.parametrize(
    ("name", "different"),
    [(name, each) for name, variants in DIFFERENT.items() for each in variants],
)
def test_sandbox_differs_in_one_fact(
    serve: Callable[..., Sandbox], name: str, different: Different
) -> None:
    """If a sandbox differs in one fact, the check shows exactly that one."""
    others = [Account(id_of(1), "mailerlite", tenant_id="tenant-2")]
    seen = see(serve(different.account, *others, alter=different.alter))

    assert differing(seen) == {name}, seen


def test_loop(serve: Callable[..., Sandbox]) -> None:
    """With a loop, the facts about the end of the list and the cursor differ."""
    seen = see(serve(account(loop="cursor")))

    assert differing(seen) == {"end_of_list", "cursor_sent_back"}
    assert seen["end_of_list"].text == "after 2 pages a cursor came back"


def test_each_fact_can_differ() -> None:
    """Each fact has a sandbox that differs in it."""
    assert set(DIFFERENT) == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


# --- nothing leaks --------------------------------------------------------------------------------

LEAK = "Zq7-leak"


def leaky(value: Any) -> Any:
    """Return the same JSON with a secret in each text, and as an additional key of each object."""
    if isinstance(value, dict):
        return {**{key: leaky(inner) for key, inner in value.items()}, LEAK: LEAK}
    if isinstance(value, list):
        return [leaky(inner) for inner in value]
    return f"{value} {LEAK}" if isinstance(value, str) else value


def leak_texts(_: Request, response: Response) -> Response:
    content = encode(leaky(json.loads(response.body)))
    return replace(response, body=content, headers={"X-Secret": LEAK, "ratelimit-reset": LEAK})


def leak_bodies(request: Request, response: Response) -> Response:
    return response if request.kind == "account" else replace(response, body=LEAK.encode())


def leak_keyed(request: Request, response: Response) -> Response:
    content = {"result": {LEAK: {"id": LEAK, LEAK: LEAK}}, LEAK: 1, "result_count": LEAK}
    return response if request.kind == "account" else replace(response, body=encode(content))


def leak_errors(request: Request, response: Response) -> Response:
    if request.kind == "account":
        return response
    return vendor_error(422, LEAK, raw_response={LEAK: LEAK}, headers={"Retry-After": LEAK})


@pytest.mark.parametrize("alter", [leak_texts, leak_bodies, leak_keyed, leak_errors])
def test_secrets_everywhere(
    serve: Callable[..., Sandbox],
    alter: Alter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No secret of a response is written, wherever it appears."""
    monkeypatch.chdir(tmp_path)
    sandbox = serve(account(), alter=alter)

    assert command.main(variables(sandbox), pause=0) == command.DIFFERENT
    written = capsys.readouterr().out + command.FILE.read_text()
    assert LEAK not in written
    assert ACCOUNT_ID not in written
    assert sandbox.environment.token not in written


def scrambled(random: Random, value: Any) -> Any:
    """Return the same JSON with values of other types here and there."""
    if random.random() < 0.1:
        return random.choice([None, 0, "", [], {}, ["x"], [None], True, {"id": {}}, 1e308])
    if isinstance(value, dict):
        return {key: scrambled(random, inner) for key, inner in value.items()}
    return [scrambled(random, inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(10))
def test_any_json(serve: Callable[..., Sandbox], seed: int) -> None:
    """Each fact has an outcome, whatever JSON the server sends."""
    random = Random(seed)

    def alter(_: Request, response: Response) -> Response:
        return replace(response, body=encode(scrambled(random, json.loads(response.body))))

    held = account(random.choice(["klaviyo", "beehiiv", "brevo"]))
    assert list(see(serve(held, alter=alter))) == NAMES


# --- the command ----------------------------------------------------------------------------------


def variables(sandbox: Sandbox, **changed: str) -> dict[str, str]:
    return {
        command.TOKEN: sandbox.environment.token,
        command.ACCOUNT: ACCOUNT_ID,
        command.URL: sandbox.url,
        **changed,
    }


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """Without variables, it checks the sandbox and reports that it does."""
    code = command.main({}, pause=0)

    output = capsys.readouterr().out
    assert code == command.SAME
    assert "so this checks the sandbox" in output
    assert "attach" not in output
    assert f"{len(FACTS)} facts: " in output
    assert ", 0 differ, " in output
    assert max(map(len, output.splitlines())) <= WIDTH
    written = command.FILE.read_text()
    assert written.count("\n| holds |") + written.count("\n| could not be seen |") == len(FACTS)


def test_row_of_a_difference(
    serve: Callable[..., Sandbox], capsys: pytest.CaptureFixture[str]
) -> None:
    """The row of a difference contains its consequence and a setting."""
    sandbox = serve(with_field("created_at", "12/31/2024"))

    assert command.main(
        variables(sandbox, TRUTO_TOKEN="Bearer " + sandbox.environment.token), 0
    ) == (command.DIFFERENT)
    output = capsys.readouterr().out
    assert "please attach it to an issue." in output
    assert "→ Any other form becomes null" in output
    assert "→ Setting: deselect the column created_at" in output
    assert "| **differs** | created_at is " in command.FILE.read_text()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"TRUTO_TOKEN": ""}, "TRUTO_TOKEN must be set, too."),
        ({"TRUTO_INTEGRATED_ACCOUNT_ID": " "}, "TRUTO_INTEGRATED_ACCOUNT_ID must be set, too."),
        (
            {"TRUTO_TOKEN": "", "TRUTO_INTEGRATED_ACCOUNT_ID": ""},
            "TRUTO_TOKEN and TRUTO_INTEGRATED_ACCOUNT_ID must be set, too.",
        ),
        ({"TRUTO_TOKEN": "two words"}, "Copy it again from Truto."),
        ({"TRUTO_TOKEN": "töken"}, "Copy it again from Truto."),
        ({"TRUTO_INTEGRATED_ACCOUNT_ID": "42"}, "must be a UUID"),
        ({"TRUTO_API_URL": "truto"}, "must be an address such as https://api.truto.one"),
        ({"TRUTO_API_URL": "https://a:b@truto.example"}, "must be an address such as"),
        ({"TRUTO_API_URL": "https://[truto.example"}, "must be an address such as"),
        ({"TRUTO_API_URL": "http://truto.example"}, "must begin with https"),
        (
            {"TRUTO_API_URL": "http://127.0.0.1:9"},
            "could not be reached (Connection refused). Check",
        ),
        ({"TRUTO_TOKEN": "another"}, "Truto rejected the token (401)."),
        ({"TRUTO_INTEGRATED_ACCOUNT_ID": id_of(9)}, "Truto has no such account (404)."),
    ],
    ids=str,
)
def test_mistake(
    serve: Callable[..., Sandbox],
    changed: dict[str, str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a mistake, one sentence explains what to do."""
    assert command.main(variables(serve(account()), **changed), pause=0) == command.NOT_CHECKED
    output = " ".join(capsys.readouterr().out.split())
    assert "Nothing was checked. " in output
    assert sentence in output
    assert not command.FILE.exists()


def test_proxy_that_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence about a proxy that fails has the reason, and no secret."""
    for name in ("https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    given = {"TRUTO_TOKEN": "token", "TRUTO_INTEGRATED_ACCOUNT_ID": ACCOUNT_ID}
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with raw_server(refusal) as proxy:
        for address, reason in [
            (proxy, "Tunnel connection failed: 407 Proxy Authentication Required"),
            ("http://127.0.0.1:9", "Connection refused"),
        ]:
            monkeypatch.setenv("HTTPS_PROXY", address.replace("//", "//some-user:password@"))
            changed = {**given, "TRUTO_API_URL": "https://truto.invalid"}
            assert command.main(changed, pause=0) == command.NOT_CHECKED
            output = " ".join(capsys.readouterr().out.split())
            assert f"The proxy did not connect ({reason}). Check HTTPS_PROXY" in output
            assert not any(secret in output for secret in ("some-user", "password", ACCOUNT_ID))


@pytest.mark.parametrize(
    "answer",
    [
        faults.body("<html>Blocked</html>", 403, "text/html", times=None),
        faults.body("[]", times=None),
        faults.redirect("https://elsewhere.example", times=None),
    ],
)
def test_answer_of_another_server(
    serve: Callable[..., Sandbox], answer: faults.Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sentence reports an answer that Truto did not send."""
    code = command.main(variables(serve(account(), faults=[answer])), pause=0)

    assert code == command.NOT_CHECKED
    assert "Check TRUTO_API_URL if it is set" in " ".join(capsys.readouterr().out.split())


# --- the requests ---------------------------------------------------------------------------------


def test_pause(serve: Callable[..., Sandbox]) -> None:
    """Each request except the first waits for the pause."""
    sandbox = serve(account())
    pauses: list[float] = []
    api = Api(sandbox.url, sandbox.environment.token, sleep=pauses.append)
    command.see_all(LiveAccount(api, ACCOUNT_ID))

    assert pauses == [PAUSE] * (api.count - 1)
    assert MAX_REQUESTS * PAUSE < live_api.MAX_SECONDS


@pytest.mark.parametrize("vendor", ["klaviyo", "flodesk", "brevo", "beehiiv"])
def test_long_list(serve: Callable[..., Sandbox], vendor: str) -> None:
    """There are enough requests for every fact, even if a list is long."""
    sandbox = serve(account(vendor, 1_500), Account(id_of(1), "mailerlite"))
    seen = see(sandbox)

    assert differing(seen) == set()
    assert not [name for name, each in seen.items() if "Not asked" in each.text]
    assert seen["end_of_list"] == Seen(UNSEEN, "The list has more than 10 pages.")
    assert len(sandbox.requests) < MAX_REQUESTS - 5


def test_limit_or_passing_failure(serve: Callable[..., Sandbox]) -> None:
    """A request that meets a limit or a temporary failure is repeated once."""
    script = [
        faults.truto_rate_limited(3.0, kind="segments"),
        faults.bad_gateway(kind="meta"),
        faults.truto_rate_limited(60.0, "date", kind="workspaces"),
    ]
    sandbox = serve(account(faults=script))
    pauses: list[float] = []
    api = Api(sandbox.url, sandbox.environment.token, pause=0, sleep=pauses.append)
    results = command.see_all(LiveAccount(api, ACCOUNT_ID))

    assert {pause for pause in pauses if pause} == {1.0, 3.0, 15.0}
    assert not [fact.name for fact, seen in results if seen.outcome is DIFFERS]


def test_failure_lasts(serve: Callable[..., Sandbox]) -> None:
    """If a failure lasts, no fact differs."""
    for failing in (
        faults.vendor_failed(kind="segments", times=None),
        faults.credentials_refused(kind="segments"),
        faults.scopes_missing(kind="segments", times=None),
        faults.reset(kind="segments", times=None),
        faults.vendor_failed(kind="segments", times=None, after=3),
    ):
        seen = see(serve(account(faults=[failing])))
        assert differing(seen) == set(), seen


def test_nothing_left(serve: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch) -> None:
    """If no request or no time is left, nothing more is requested."""
    monkeypatch.setattr(live_api, "MAX_REQUESTS", 20)
    assert "no request" in see(serve(account()))["model"].text
    monkeypatch.setattr(live_api, "MAX_SECONDS", 0.0)
    sandbox = serve(account())
    assert {seen.outcome for seen in see(sandbox).values()} == {UNSEEN}
    assert sandbox.requests == []

"""Misleading settings, files written by hand, and what a check and a log report about them."""

import json
import logging
import re
import subprocess
from collections.abc import Callable, Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from airbyte_cdk.models import Status

from integration_tests.support import (
    ACCOUNT_ID,
    ALL,
    ALL_STREAMS,
    COMMAND,
    FakeClock,
    Serve,
    account,
    catalog,
    check,
    config,
    id_of,
    listed,
    numbered_account,
    read,
    warnings_in,
)
from sandbox import Account, faults
from sandbox.request import Kind
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.config import Config, ConfigError
from source_truto_segments.files import read_catalog, read_config, read_state
from source_truto_segments.sync.accounts import Account as Found
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError
from source_truto_segments.truto.rate_limiter import Delay
from unit_tests.test_documentation import is_documented

KINDS: tuple[Kind, ...] = ("workspaces", "segments")


def some(count: int) -> list[dict[str, Any]]:
    return [{"id": str(number), "name": "a"} for number in range(count)]


# --- keys and modes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "nearest"),
    [
        ({"tenants": ["acme"]}, "tenants", "additional_accounts.tenant_ids"),
        ({"workspaceId": "w"}, "workspaceId", "workspace_id"),
        ({"integrations": ["a"]}, "integrations", "additional_accounts.integrations"),
        (
            {"additional_accounts": {**ALL, "tenants": ["t"]}},
            "additional_accounts.tenants",
            "additional_accounts.tenant_ids",
        ),
        (
            {"remote_query": [{"name": "a", "value": "", "nam": "b"}]},
            "remote_query.nam",
            "remote_query.name",
        ),
        ({"additional_accounts.mode": "all"}, "additional_accounts.mode", "additional_accounts"),
    ],
)
def test_unknown_key(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    key: str,
    nearest: str,
) -> None:
    """Check and read warn about an unknown key at any depth, and suggest the nearest one."""
    sandbox = serve(account())
    text = (
        f'The configuration has an unknown key, "{key}", which has no effect. Perhaps '
        f'"{nearest}" is meant.'
    )

    assert check(sandbox, **fields) == (Status.SUCCEEDED, text)
    assert read(sandbox, **fields).failure is None
    assert warnings_in(caplog).count(text) == 2
    assert is_documented(text)


def test_key_like_no_other(serve: Serve) -> None:
    """If no key is similar, the known ones are listed; null keys and comments are ignored."""
    _, message = check(serve(account()), zzz="secret-value", old=None, _note="for us")

    assert message is not None
    assert message.startswith('The configuration has an unknown key, "zzz", which has no effect.')
    assert "Known are token, integrated_account_id" in message
    assert "nearest" not in message
    assert "Perhaps" not in message
    assert "secret-value" not in message
    assert message.count("unknown key") == 1


def test_key_of_another_mode(serve: Serve) -> None:
    """A list of IDs beside mode all has no effect, and a warning reports that."""
    fields = {"additional_accounts": {"mode": "all", "ids": [id_of(1)]}}
    _, message = check(serve(account()), **fields)

    assert message == (
        'The key "additional_accounts.ids" has no effect with the mode "all"; it belongs to the '
        'mode "listed".'
    )
    assert is_documented(message)


def test_missing_field_misspelt() -> None:
    """The message about a missing field contains the misspelt key that explains it."""
    with pytest.raises(ConfigError, match=r"is missing.*\"tokn\".*Perhaps \"token\" is meant"):
        Config.parse({"tokn": "t", "integrated_account_id": id_of(1)})


@pytest.mark.parametrize("mode", ["ALL", "All", " all "])
def test_mode_in_any_case(serve: Serve, mode: str) -> None:
    """Modes are recognized in upper and lower case, and with spaces around them."""
    sandbox = serve(numbered_account(1), numbered_account(2))
    result = read(sandbox, additional_accounts={"mode": mode}, on_account_error="Skip")

    assert len(result.ids) == 6


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ("all", '{"mode": "all"}'),
        ("ALL", '{"mode": "all"}'),
        ("none", '{"mode": "none"}'),
        (True, '{"mode": "all"}'),
        ([id_of(1)], '{"mode": "listed", "ids": ["62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"]}'),
    ],
    ids=str,
)
def test_mode_as_text(serve: Serve, given: Any, example: str) -> None:
    """If the setting is not an object, the message has an example of the right form."""
    status, message = check(serve(account()), additional_accounts=given)

    assert status is Status.FAILED
    assert message is not None
    assert message == (
        "Additional accounts (additional_accounts) must have a mode, one of none, listed, all. For "
        f"example: {example}."
    )


def test_text_in_place_of_a_list(serve: Serve) -> None:
    """If a single value takes the place of a list, the message has an example of a list."""
    _, message = check(serve(account()), additional_accounts={**ALL, "integrations": "klaviyo"})

    assert message is not None
    assert '(additional_accounts.integrations) must be a list, for example ["klaviyo"].' in message


# --- integrations, tenants and workspaces ---------------------------------------------------------


@pytest.mark.parametrize("name", ["customerio", "Customer.io", "CUSTOMER IO", "crm label"])
def test_integration_by_label(serve: Serve, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Integrations are matched by name or label, in the spellings that people use."""
    others = [
        numbered_account(2, "customerio"),
        numbered_account(3, "my-crm", segments=some(3), label="CRM Label"),
        numbered_account(4, "brevo"),
    ]
    sandbox = serve(numbered_account(1), *others)
    result = read(sandbox, additional_accounts={**ALL, "integrations": [name]})

    number = 3 if name == "crm label" else 2
    found = {record["integrated_account_id"] for record in result.records}
    assert found == {id_of(1), id_of(number)}
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("names", [["Klavio"], ["Klavio", "brevo"]])
def test_integration_that_matches_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture, names: list[str]
) -> None:
    """The warnings of check and read list the integrations of the environment."""
    sandbox = serve(*(numbered_account(n, "brevo" if n > 3 else "klaviyo") for n in range(1, 6)))
    text = (
        "No integrated account matches these entries of additional_accounts.integrations: Klavio. "
        "The environment has: klaviyo (3), brevo (2)."
    )
    read(sandbox, additional_accounts={**ALL, "integrations": names})
    found = check(sandbox, additional_accounts={**ALL, "integrations": names})
    assert found == (Status.SUCCEEDED, text)

    assert warnings_in(caplog) == [text, text]
    assert is_documented(text)


def test_tenants_that_match_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The warning about tenants has a limited length, and the nearest ones come first."""
    accounts = [numbered_account(n, tenant_id=f"customer-{n}") for n in range(1, 41)]
    wanted = ["customer-1", "Customer-7x", *(f"zzz-{n}" for n in range(30))]
    read(serve(*accounts), additional_accounts={**ALL, "tenant_ids": wanted})

    (text,) = warnings_in(caplog)
    assert "of additional_accounts.tenant_ids: Customer-7x, zzz-0, zzz-1" in text
    assert "and 21 more. The environment has: customer-7 (1), " in text
    assert text.endswith("and 30 more.")


def test_options_that_exclude_each_other(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If each option matches some account but no account matches both, a warning reports it."""
    sandbox = serve(numbered_account(1, tenant_id="a"), numbered_account(2, "brevo", tenant_id="b"))
    options = {"mode": "all", "integrations": ["klaviyo"], "tenant_ids": ["b"]}
    read(sandbox, additional_accounts=options)

    (text,) = warnings_in(caplog)
    assert check(sandbox, additional_accounts=options) == (Status.SUCCEEDED, text)
    assert text == (
        "No other integrated account matches integrations and tenant_ids under additional_accounts "
        "at the same time."
    )
    assert is_documented(text)


def of_workspaces(vendor: str = "brevo", **how: Any) -> Account:
    return account(vendor, segments=[], workspaces={"a": some(5)[:3], "b": some(5)[3:]}, **how)


@pytest.mark.parametrize("vendor", ["klaviyo", "flodesk", "brevo", "customerio", "other"])
@pytest.mark.parametrize("mode", ["none", "all"])
def test_workspace_that_is_not_there(
    serve: Serve, caplog: pytest.LogCaptureFixture, vendor: str, mode: str
) -> None:
    """A workspace that no account has causes a warning, and no row gets its ID."""
    sandbox = serve(Account(id_of(1), vendor, some(5), category="marketing-automation"))
    result = read(sandbox, workspace_id="nope", additional_accounts={"mode": mode})

    assert len(result.records) == 5
    assert not any("workspace_id" in record for record in result.records)
    (text,) = warnings_in(caplog)
    assert text.startswith('No account that could be read has the workspace "nope"')
    assert is_documented(text)


@pytest.mark.parametrize("vendor", ["brevo", "beehiiv"])
@pytest.mark.parametrize("mode", ["none", "all"])
@pytest.mark.parametrize("streams", [("segments",), ALL_STREAMS])
def test_workspace_of_one_account(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    vendor: str,
    mode: str,
    streams: tuple[str, ...],
) -> None:
    """The rows of the account that has the workspace get its ID; other accounts' rows do not."""
    sandbox = serve(of_workspaces(vendor), numbered_account(2, "klaviyo"))
    result = read(
        sandbox,
        configured=catalog(streams=streams),
        workspace_id="a",
        additional_accounts=ALL if mode == "all" else listed(2),
    )

    stamps = [(r["integrated_account_id"], r.get("workspace_id")) for r in result.records]
    first = sandbox.environment.accounts[0].id
    assert sorted(stamps, key=str) == sorted([(first, "a")] * 3 + [(id_of(2), None)] * 3, key=str)
    assert warnings_in(caplog) == []


def test_workspace_of_an_override(serve: Serve) -> None:
    """A record's own workspace_id stays if the connector has none for it."""
    sandbox = serve(account(segments=[{"id": "1", "name": "a", "workspace_id": "own"}]))

    assert [r["workspace_id"] for r in read(sandbox, workspace_id="nope").records] == ["own"]


def test_workspaces_that_cannot_be_listed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If workspaces are denied, the account is still read; a temporary failure fails it."""
    denied = faults.scopes_missing(kind="workspaces", times=None)
    result = read(serve(account("brevo", 5, faults=[denied])), workspace_id="nope")
    assert (len(result.records), result.failure) == (5, None)
    (text, _) = warnings_in(caplog)
    assert text.startswith(f"It is not known whether integrated account {ACCOUNT_ID} has the ")
    assert "the vendor denied access with this connection (HTTP 403; " in text

    failing = faults.truto_failed(kind="workspaces", times=None)
    result = read(serve(account("brevo", 5, faults=[failing])), workspace_id="nope")
    assert result.records == []
    assert "Truto had an internal error" in str(result.failure)


@pytest.mark.parametrize(
    "fields",
    [{"result": [], "is_partial_response": True}, {"result": [{"id": "b"}, None]}],
    ids=["partial", "invalid entry"],
)
@pytest.mark.parametrize("streams", [("segments",), ("segments", "workspaces")], ids=len)
def test_workspace_on_incomplete_list(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any],
    streams: tuple[str, ...],
) -> None:
    """If an incomplete list lacks the workspace, the account fails and keeps its rows."""
    accounts = [
        numbered_account(number, "brevo", segments=[], workspaces={"a": some(2), "b": some(1)})
        for number in range(2)
    ]
    sandbox = serve(*accounts)
    options: dict[str, Any] = {
        "configured": catalog("incremental", streams=streams),
        "workspace_id": "a",
        "on_account_error": "skip",
        "additional_accounts": ALL,
    }
    first = read(sandbox, **options)

    page = json.dumps({**fields, "next_cursor": None})
    accounts[0].faults = [faults.body(page, kind="workspaces", times=None)]
    second = read(sandbox, state=first.last_state, **options)
    assert (second.records, second.failure) == ([], None)
    (text,) = [text for text in warnings_in(caplog) if "the list may be incomplete" in text]
    assert text.startswith(f"Listing the workspaces of integrated account {id_of(0)} failed: ")
    assert "the next sync tries again" in text

    accounts[0].faults = []
    assert read(sandbox, state=second.last_state, **options).records == []


def test_check_of_a_workspace(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The check warns only if it has asked every account, since others may have the workspace."""
    sandbox = serve(account())
    check(sandbox, workspace_id="nope")
    check(sandbox, workspace_id="nope", additional_accounts=ALL)

    assert len(warnings_in(caplog)) == 1


# --- the check ------------------------------------------------------------------------------------


def test_counts_of_a_check(serve: Serve) -> None:
    """The check reports how many accounts it asked, and how many of these cannot be read."""
    broken = numbered_account(1, status="needs_reauth")
    sandbox = serve(broken, *(numbered_account(n) for n in range(2, 8)))
    _, message = check(sandbox, additional_accounts=ALL)

    assert message is not None
    assert message.startswith(
        "Asked 1 of 7 integrated accounts for segments: 1 of these cannot be read.\n"
    )


def test_account_that_is_not_there_is_not_counted(serve: Serve) -> None:
    """An account that does not exist is none of those that the check asked."""
    sandbox = serve(*(numbered_account(n) for n in range(2, 9)))
    _, message = check(sandbox, integrated_account_id=id_of(1), additional_accounts=ALL)
    assert str(message).startswith(f"Reading the segments of integrated account {id_of(1)} failed")

    sandbox.environment.accounts.append(numbered_account(9, status="needs_reauth"))
    _, message = check(sandbox, integrated_account_id=id_of(1), additional_accounts=ALL)
    assert str(message).startswith(
        "Asked 1 of 8 integrated accounts for segments: 1 of these cannot be read.\n"
    )


def test_check_that_skips(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """With skip, one readable account is enough, even if the configured one cannot be read."""
    broken = numbered_account(1, status="needs_reauth")
    sandbox = serve(broken, numbered_account(2))
    fields: dict[str, Any] = {"additional_accounts": ALL, "on_account_error": "skip"}

    with caplog.at_level("INFO"):
        assert check(sandbox, **fields) == (Status.SUCCEEDED, None)
    assert "Asked 2 of 2 integrated accounts for segments: 1 of these cannot be read." in (
        caplog.messages
    )
    assert read(sandbox, **fields).failure is None


def test_check_of_an_account_that_is_not_there(serve: Serve) -> None:
    """If the configured account does not exist, the check fails even with skip."""
    heals = numbered_account(3, status="needs_reauth", heals_on_request=True)
    sandbox = serve(numbered_account(2), heals)
    fields: dict[str, Any] = {"additional_accounts": ALL, "on_account_error": "skip"}
    status, message = check(sandbox, integrated_account_id=id_of(1), **fields)

    assert status is Status.FAILED
    assert message is not None
    assert "Truto has no such account" in message


def test_check_meets_a_defect(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the connector fails the sync even with skip, and so it fails the check."""
    sandbox = serve(numbered_account(1), numbered_account(2))
    fields = {"additional_accounts": listed(2), "on_account_error": "skip"}

    def probe(_: AccountReader, account: Found) -> Generator[Delay, None, None]:
        if account.id == id_of(2):
            raise ReadError(errors.UNEXPECTED, "Reading", id_of(2))
        yield from ()

    monkeypatch.setattr(AccountReader, "probe", probe)
    assert check(sandbox, **fields)[0] is Status.FAILED


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_failure_once(serve: Serve, caplog: pytest.LogCaptureFixture, on_error: str) -> None:
    """One failure of an account is reported once for all streams, and each is INCOMPLETE."""
    sandbox = serve(account("brevo", status="needs_reauth"), numbered_account(2))
    result = read(
        sandbox,
        configured=catalog("incremental", streams=ALL_STREAMS),
        additional_accounts=listed(2),
        on_account_error=on_error,
    )

    told = [*warnings_in(caplog), *(error["message"] for error in result.errors)]
    reported = [text for text in told if "rejected the credentials" in text]
    assert len(reported) == (2 if on_error == "fail" else 1)  # the log line and the trace
    if on_error == "fail":
        assert result.statuses == ["STARTED", "RUNNING", "INCOMPLETE"]
        assert result.statuses_of("workspaces")[-1] == "INCOMPLETE"


def test_other_words_for_one_failure(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If a second stream of an account fails in other words, only the log has them."""
    denied = [faults.scopes_missing(kind, kind=kind, times=None) for kind in KINDS]
    with caplog.at_level("INFO"):
        result = read(serve(account("brevo", faults=denied)), configured=catalog(streams=KINDS))

    assert len(result.errors) == len(warnings_in(caplog)) == 1
    assert "missing scopes: workspaces" in str(result.failure)
    assert any("missing scopes: segments" in text for text in caplog.messages)


def test_cause_of_different_streams(serve: Serve) -> None:
    """One cause is one message, even for different streams, and it counts accounts."""
    broken = [
        numbered_account(1, "brevo", status="needs_reauth"),
        numbered_account(2, "klaviyo", status="needs_reauth"),
    ]
    result = read(
        serve(*broken, numbered_account(3)),
        configured=catalog(streams=ALL_STREAMS),
        additional_accounts=ALL,
    )

    (cause,) = [e["message"] for e in result.errors if "credentials" in e["message"]]
    assert cause.startswith("Reading integrated accounts failed: the vendor rejected the cred")
    assert re.search(r"Affected: 2 integrated accounts \((brevo: 1|klaviyo: 1|, ){3}\)", cause)


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({}, "Send this message to Truto's support."),
        (
            {"tag_id": "t"},
            (
                "Check tag_id in the source's configuration; if it is correct, send this message "
                "to Truto's support."
            ),
        ),
        (
            {"remote_query": [{"name": "a", "value": "b"}], "workspace_id": "w"},
            (
                "Check workspace_id and remote_query in the source's configuration; if they are "
                "correct, send this message to Truto's support."
            ),
        ),
    ],
)
def test_settings_that_were_sent(serve: Serve, fields: dict[str, Any], advice: str) -> None:
    """The message about a rejected request lists the settings that it had, and no others."""
    broken = account("brevo", faults=[faults.vendor_refused(422, kind="segments", times=None)])

    assert str(read(serve(broken), **fields).failure).endswith(advice)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"integrations": ["klaviyo"]}, "integrations under additional_accounts"),
        ({"tenant_ids": ["acme"]}, "tenant_ids under additional_accounts"),
    ],
)
def test_filter_of_the_list(serve: Serve, options: dict[str, Any], named: str) -> None:
    """The message about a rejected list contains the option that was sent."""
    refused = faults.truto_error(422, kind="accounts", times=None)
    result = read(serve(account(), faults=[refused]), additional_accounts={**ALL, **options})

    assert f". Check {named} in the source's configuration; if it is" in str(result.failure)


def test_id_that_is_wrong(serve: Serve) -> None:
    """A missing account's message contains its field, and the token only if that may be wrong."""
    sandbox = serve(numbered_account(1))
    alone = read(sandbox, integrated_account_id=id_of(5))
    beside = read(sandbox, additional_accounts=listed(5))

    assert "Check integrated_account_id in the source's configuration, and that the API" in str(
        alone.failure
    )
    assert "Check ids under additional_accounts in the source's configuration: the env" in str(
        beside.failure
    )


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_proxy_that_is_set(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """If a proxy cannot be reached, the message contains the variable that sets it."""
    for each in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    result = read(serve(account()), api_url="https://truto.invalid")

    assert f"of the machine that runs the sync ({name}), and that" in str(result.failure)


# --- sentences ------------------------------------------------------------------------------------


def test_one_account_in_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The log uses no plural for one account or one record."""
    with caplog.at_level("INFO"):
        read(serve(account(count=1)))

    assert caplog.messages[-1] == "Read 1 integrated account. Records emitted: 1 of segments."


def test_no_plural_in_brackets() -> None:
    """No text has a plural in brackets."""
    package = Path(__file__).parent.parent / "source_truto_segments"
    texts = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))

    assert re.findall(r"\w\(s\)|%d (?:\w+ )?(?:account|record)s", texts) == []


def test_version() -> None:
    """The command prints the version of the package."""
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"source-truto-segments {version('airbyte-source-truto-segments')}\n"


def rejection(read_file: Callable[[str], Any], path: Path, content: str | bytes) -> str:
    """Return the message about a file with this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as wrong:
        read_file(str(path))
    return str(wrong.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "it is empty"),
        ("[]", "it is a list, not an object"),
        ('"all"', "it is a text, not an object"),
        ("5", "it is a number, not an object"),
        ("null", "it is null, not an object"),
        ('{\n  // ours\n  "token": "t"}', "line 2 has a comment, which JSON does not have"),
        ('{"token": "t" # ours\n}', "line 1 has a comment, which JSON does not have"),
        ('{\n"token": "t",\n}', "line 2 ends with a comma, after which nothing follows"),
        ('{"a": [\n1,\n2,\n]}', "line 3 ends with a comma, after which nothing follows"),
        ("{'token': 't'}", "line 1 has a single quote; JSON takes double quotes"),
        ('{"a": True}', "line 1 has True, False or None; JSON has true, false and null"),
        ('{"a": 1\n', "it ends in line 2 before all brackets and quotes are closed"),
        ('{"a": 1}\n{"b": 2}', "line 2 has more after the end of the first JSON value"),
        ('{"a": 1\n"b": 2}', "a comma is missing before what begins in line 2, or a bracket"),
        ('{"a" 1}', "a colon is missing in line 1"),
        ("{a: 1}", "line 1 has a key without double quotes"),
        ('{"a": "b\nc"}', "a text in line 1 contains a line break or a tab"),
        ('{"a": "C:\\x"}', "line 1 has a backslash in a text, which is written twice"),
        ("token: t", "line 1 is not JSON"),
        ("\n\n{a: 1}", "line 3 has a key without double quotes"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"streams": []}', "it looks like a catalog"),
        ('[{"type": "STATE", "state": {}}]', "it looks like a state"),
        ('{"type": "LOG"}\n{"type": "CATALOG"}', "it is the output of a command"),
        (b'{"token": "\xe4\xf6"}', "it is not a text in UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_file_that_is_not_valid(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    """Each mistake in a file has a sentence with its line, which quotes nothing from the file."""
    path = tmp_path / "config.json"
    message = rejection(read_config, path, content)
    assert message == (
        f"{path} is not valid: {sentence}. The configuration (--config FILE) must be an object, "
        'such as {"token": "…", "integrated_account_id": "…"}.'
    )
    assert is_documented(message)


@pytest.mark.parametrize("kind", ["missing", "folder", "locked"])
def test_file_that_cannot_be_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, a folder and a missing permission each have a message of our own."""
    path = tmp_path / "state.json"
    sentences = {"missing": "there is no such file", "folder": "it is a folder"}
    if kind == "folder":
        path.mkdir()
    elif kind == "locked":
        monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=PermissionError(13, "EACCES")))
    for parse in (read_config, read_catalog, read_state):
        with pytest.raises(ConfigError) as wrong:
            parse(str(path))
        problem = sentences.get(kind, "this user has no permission")
        option = f"--{parse.__name__.removeprefix('read_')}"
        message = f"The file {path} ({option}) cannot be read: {problem}."
        assert str(wrong.value) == message
        assert is_documented(message)


def test_empty_path() -> None:
    """An empty path, as an unset variable leaves it, is no folder; without a state, all is read."""
    for parse, option in ((read_config, "--config"), (read_catalog, "--catalog")):
        with pytest.raises(ConfigError) as wrong:
            parse("")
        assert str(wrong.value) == f"{option} is empty. It must be the path of a file."
        assert is_documented(str(wrong.value))
    assert read_state("") == []


def test_file_of_windows(tmp_path: Path) -> None:
    """A file in UTF-16, as Windows writes it, can be read."""
    path = tmp_path / "config.json"
    path.write_text('{"token": "ä"}', encoding="utf-16")

    assert read_config(str(path)) == {"token": "ä"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "it is a list, not an object"),
        ('{"type": "CATALOG", "catalog": {"streams": []}}', "it is the output of a command."),
        ('{"type": "LOG"}\n{"type": "CATALOG"}', "it is the output of a command."),
        ('{"token": "t"}', "it looks like a configuration."),
        ('{"type": "STATE", "state": {}}', "it looks like a state."),
        ("{}", '"streams" is missing.'),
        ('{"streams": 5}', "5 is not a list (streams)."),
        ('{"streams": [{"stream": 5}]}', "5 is not an object (streams, entry 1, stream)."),
    ],
)
def test_catalog_that_is_not_valid(tmp_path: Path, content: str, sentence: str) -> None:
    """The message shows the form of a catalog, and where the guide has the command for it."""
    message = rejection(read_catalog, tmp_path / "catalog.json", content)
    assert f"catalog.json is not valid: {sentence}" in message
    assert "The catalog (--catalog FILE) must be a configured catalog: " in message
    assert '"sync_mode": …' in message
    assert "the command that makes it from the output of discover." in message
    assert is_documented(message)


@pytest.mark.parametrize("content", ["5", "[5]", '{"type": "STATE", "state": 5}', "[", '["a"]'])
def test_state_that_is_not_valid(tmp_path: Path, content: str) -> None:
    """The message about an invalid state contains no text from Python."""
    message = rejection(read_state, tmp_path / "state.json", content)
    assert not re.search(r"object has|Expecting", message)
    assert "(--state FILE) must be a list of the state of each stream's last STATE message." in (
        message
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"token": "t", "integrated_account_id": "a"}', "it looks like a configuration."),
        ('{"streams": []}', "it looks like a catalog."),
        ('{"type": "STATE", "state": {}}\n{"type": "LOG"}', "it is the output of a command."),
        ('{"type": "LOG"}', "it is the output of a command."),
        ("{}\n{}", "line 2 has more after the end of the first JSON value."),
    ],
)
def test_another_file_as_state(tmp_path: Path, content: str, sentence: str) -> None:
    """If the file of another option is given, the message says what it is."""
    message = rejection(read_state, tmp_path / "state.json", content)
    assert f"state.json is not valid: {sentence}" in message
    assert "the command that makes it from the output of read." in message


# --- discover -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (faults.truto_failed(kind="meta", times=None), "Fetch the schema again in some minutes."),
        (
            faults.truto_rate_limited(60, kind="meta", times=None),
            "Fetch the schema again in some minutes.",
        ),
        (faults.token_refused(kind="meta", times=None), "Create an API token in the Truto"),
        (faults.truto_error(422, kind="meta", times=None), "Send this message to Truto's support."),
    ],
    ids=["fails", "limit", "token", "refused"],
)
def test_advice_of_discover(serve: Serve, fault: faults.Fault, advice: str) -> None:
    """Discover advises neither to wait for a sync nor to check what it does not send."""
    sandbox = serve(account(), faults=[fault])
    with pytest.raises(ReadError) as failed:
        SourceTrutoSegments(FakeClock()).discover(logging.getLogger(), config(sandbox))

    assert f". {advice}" in str(failed.value)
    assert "sync" not in str(failed.value).partition(". ")[2]

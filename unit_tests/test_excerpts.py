"""Secrets in any form, and what else is masked in texts from outside."""

import json
from base64 import b64encode
from collections.abc import Iterator

import pytest

from source_truto_segments.truto.excerpts import SECRETS, Secrets, excerpt, mask

SECRET = "Tr0ub4dor&3/of+the<tests>"


@pytest.fixture(autouse=True)
def secrets() -> Iterator[None]:
    SECRETS.replace([SECRET], [("filter[x]", "ab c"), ("k", "abcdefg7"), ("l", "abcdefgh")])
    yield
    SECRETS.replace([], [])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        SECRET.upper(),
        "Tr0ub4dor%263%2Fof%2Bthe%3Ctests%3E",
        "tr0ub4dor%2526%2533/of%2bthe%3ctests%3e",
        "Tr0ub4dor&amp;3/of+the&lt;tests&GT;",
        "Tr0ub4dor&#38;3/of+the&#x3C;tests&#62;",
        r"Tr0ub4dor\&3\/of+the<tests>",
        r"Tr0ub4dor\u00263\/of+the\u003Ctests\U003E",
    ],
)
def test_forms(form: str) -> None:
    """A secret is masked in each spelling, and nothing beside it."""
    assert mask(form) == "****"
    assert mask(f"a {form} b {form}") == "a **** b ****"


@pytest.mark.parametrize("before", range(7))
def test_base64_with_neighbors(before: int) -> None:
    """In base64, a secret is masked at each offset, except for what its neighbors change."""
    text = b64encode(b"x" * before + SECRET.encode() + b"yyyyyy").decode()
    begin, end = -(-before * 8 // 6), (before + len(SECRET)) * 8 // 6
    assert mask(text) == f"{text[:begin]}****{text[end:]}"
    assert mask(text.translate(str.maketrans("+/", "-_")))[:begin] == text[:begin]


@pytest.mark.parametrize("secret", ["abcdefgh9", 'quoted"or"escaped"in"JSON'])
def test_base64_of_json(secret: str) -> None:
    """A secret is masked in base64 as it is in JSON, too, also if it is short."""
    SECRETS.replace([secret], [])
    for content in (secret, json.dumps(secret)[1:-1]):
        text = b64encode(content.encode()).decode()
        assert mask(text).rstrip("=")[4:] in ("", text[len(content) * 8 // 6 :].rstrip("="))


def test_half_surrogate() -> None:
    """A secret that has no UTF-8 form is masked like any other."""
    SECRETS.replace(["abcdef\ud800ghijkl"], [("n", "1\ud8002")])
    assert mask("(abcdef\ud800ghijkl) n=1\ud8002") == "(****) n=****"
    assert mask("(abcdef%3Fghijkl) n=1%3F2") == "(abcdef%3Fghijkl) n=****"


def test_incomplete_parameters() -> None:
    """A parameter without a name or a value masks nothing."""
    SECRETS.replace([], [("", "abcdefghijklmno"), ("m", "")])
    assert mask("=abcdefghijklmno m= m='' x") == "=abcdefghijklmno m= m='' x"


def test_parts() -> None:
    """Twelve characters of a secret are masked wherever they are; eleven are not."""
    for at in range(len(SECRET) - 11):
        assert mask(f"({SECRET[at : at + 12]})") == "(****)"
    assert mask(SECRET[3:14]) == SECRET[3:14]


def test_spellings_keep_places() -> None:
    """What is around an escaped secret stays as it is, escapes too."""
    text = f"%41 &amp; \\n {SECRET.replace('&', '%26')} %42 &lt; \\t"
    assert mask(text) == "%41 &amp; \\n **** %42 &lt; \\t"
    assert mask("\\q \\u12 %zz &x;") == "\\q \\u12 %zz &x;"
    assert mask("İ " + SECRET) == "İ ****"


@pytest.mark.parametrize(
    ("secret", "is_masked"), [("abcd", True), ("abc", False), (" abcd ", True)]
)
def test_short_secrets(secret: str, is_masked: bool) -> None:
    """A secret of four characters is masked; a shorter one would mask letters of any word."""
    SECRETS.replace([secret], [])
    assert (mask("xabcdx") == "x****x") == is_masked


def test_invisible_characters() -> None:
    """A secret is masked with and without its invisible characters."""
    SECRETS.replace(["abc\u200bdefghijklmnop"], [])
    assert mask("abcdefghijklmnop") == mask("abc\u200bdefghijklmnop") == "****"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("filter[x]=ab c!", "filter[x]=****!"),
        ("FILTER[X] : 'AB C'", "FILTER[X] : '****'"),
        ("filter%5Bx%5D=ab+c&y=1", "filter[x]=ab+c"),
        ("remote_query[k]=abcdefg7", "remote_query[k]=****"),
        ("the value abcdefg7 alone", "the value **** alone"),
        ("the value abcdefgh alone", "the value abcdefgh alone"),
        ("l=abcdefgh", "l=****"),
        ("xl=abcdefgh", "xl=abcdefgh"),
        ("l=abcdefghi", "l=abcdefghi"),
        ("ab c", "ab c"),
    ],
)
def test_parameters(text: str, shown: str) -> None:
    """A parameter's value is masked after its name; everywhere, if it cannot be a word."""
    if "%5B" in text:
        SECRETS.replace([], [("filter[x]", "ab c")])
        assert "ab" not in mask(text.replace("%5Bx%5D", "[x]"))
        return
    assert mask(text) == shown


@pytest.mark.parametrize(
    ("value", "is_masked"),
    [
        ("abcdef7", False),
        ("abcdefg7", True),
        ("abcdefgh", False),
        ("abcdefghijk", False),
        ("abcdefghijkl", True),
    ],
)
def test_values_alone(value: str, is_masked: bool) -> None:
    """A value is masked without its name if it has a digit and eight characters, or twelve."""
    SECRETS.replace(
        [],
        [
            ("n", value),
        ],
    )
    assert mask(f"<{value}>") == ("<****>" if is_masked else f"<{value}>")


def test_forms_of_value() -> None:
    """A value is masked after its name as it is, and as it is in URLs."""
    SECRETS.replace([], [("n", "a /b")])
    assert mask("n=a+%2Fb n=a%20%2fb n=a /b n=A /B") == "n=**** n=**** n=**** n=****"


def test_machine_secrets() -> None:
    """A secret of the machine stays one with another configuration."""
    secrets = Secrets()
    assert (secrets.runs, secrets.parameters) == ({}, ())
    secrets.add("the proxy's password")
    secrets.replace(["another secret"], [])
    secrets.add("a second one")
    runs = {run for found in secrets.runs.values() for run in found}
    assert {"the proxy's ", "a second one", "another secr"} <= runs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see {a: {b}, c} and {d} end", "see {…} and {d} end"),
        ("see {a=1 and more", "see {…}"),
        ("see {a and more", "see {a and more"),
        ("see {a} {b: 1} {c", "see {a} {…} {c"),
        ("see} {b: 1} on", "see} {…} on"),
        ("{b: 1} on", "{…} on"),
    ],
)
def test_broken_objects(text: str, shown: str) -> None:
    """Of a broken object in a text, only what has no values is shown."""
    assert excerpt(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('400: {"message": "no", "b": 1}; {"c": 2} on', "400: no; {c} on"),
        ('{"message": "see {\\"error\\": \\"no\\"}"}', "see no"),
        ({"a": 1, "b": None}, "{a, b}"),
        ({"error": None, "errors": [], "meta": {}, "code": 0}, "0"),
        ([{"code": 1}, None, "", True, 1.5, "x", "y"], "1; true; 1.5"),
        ({}, ""),
    ],
)
def test_reasons(value: object, shown: str) -> None:
    """Of an object, also inside a text, the reason is shown, otherwise the names of its keys."""
    assert excerpt(value) == shown


def test_deep_objects() -> None:
    """A reason is searched for in ten levels; what is deeper is shown as an ellipsis."""
    value: object = "why"
    for _ in range(9):
        value = {"error": value}
    assert excerpt(f"400 {json.dumps(value)}") == "400 why"
    value = {"error": value}
    assert excerpt(value) == "why"
    assert excerpt({"error": value}) == excerpt([value]) == "…"
    assert excerpt(f"400 {json.dumps(value)}") == "400 …"


def test_end_of_secret() -> None:
    """Less than a run of a secret is not masked, even at the end of a text."""
    for size in range(1, 12):
        for end in (SECRET[-size:], "x " + SECRET[-size:]):
            assert mask(end) == end


def test_padding() -> None:
    """In base64, what follows a secret's last whole character is not masked."""
    secret = "abcdefghijkl3"
    SECRETS.replace([secret], [])
    assert mask(f"({b64encode(secret.encode()).decode()})") == "(****w==)"

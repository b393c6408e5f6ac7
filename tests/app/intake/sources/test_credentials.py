"""Secret files, and the tokens that a client requests with them."""

import json

import pytest

from app.errors import ValidationError
from app.intake.sources.credentials import Credentials, TokenEndpoint, TokenError, read_secret
from app.provider_http import Answer, FetchError

CLIENT = 'client_id = "us"\nclient_secret = "a-secret"\n'
ENDPOINT = TokenEndpoint("https://idp.example/token", "read", "api", fixed="SSWS")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "secret"


@pytest.mark.parametrize(
    "text",
    [
        'token = "a-token"\n', '{"token": "a-token"}', "a-token", "a-token\n", "\ufeffa-token\n",
    ],
)  # fmt: skip
def test_a_token_is_read_from_each_form(file, text):
    file.write_text(text)
    assert read_secret(file).token == "a-token"


def test_a_client_is_read(file):
    file.write_text(CLIENT + 'scope = "s"\ntoken_url = "https://idp.example/t"\n')
    found = read_secret(file)
    assert (found.client_id, found.client_secret, found.scope) == ("us", "a-secret", "s")
    assert "a-secret" not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "", "client_id = 5\n" + CLIENT, 'client_id = "us"\n', CLIENT + 'token = "t"\n',
        CLIENT + 'colour = "a-secret"\n', 'token = ""\n', '{"token": "a-secret\\n"}', "a\nb\n",
        '{"token": ', CLIENT + 'token_url = "ftp://a-secret"\n', "x" * 70_000,
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_without_its_content(file, text):
    file.write_text(text)
    with pytest.raises(ValidationError) as raised:
        read_secret(file)
    assert str(file) in raised.value.message
    assert "a-secret" not in raised.value.message


class Provider:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        status, body = self.answers.pop(0)
        return Answer(status, {}, json.dumps(body).encode())


def granted(token, seconds=3600):
    return 200, {"access_token": token, "expires_in": seconds}


def test_a_token_is_kept_until_shortly_before_its_end(file):
    """It is requested anew a minute early, with the secret that is in the file then."""
    file.write_text(CLIENT)
    now = 0.0
    provider = Provider(granted("one"), granted("two"), granted("three"))
    credentials = Credentials(file, ENDPOINT, provider, monotonic=lambda: now)
    assert [credentials.header() for _ in range(3)] == ["Bearer one"] * 3
    now = 3539.0
    assert credentials.header() == "Bearer one"
    now = 3541.0
    file.write_text(CLIENT.replace("a-secret", "another"))
    assert credentials.header() == "Bearer two"
    credentials.forget()
    assert credentials.header() == "Bearer three"
    assert len(provider.requests) == 3
    form = provider.requests[1].data.decode()
    assert form == (
        "grant_type=client_credentials&client_id=us&client_secret=another&scope=read&audience=api"
    )


def test_a_token_made_by_hand_has_the_scheme_of_the_provider(file):
    for token, scheme in (("00abc", "SSWS"), ("ey.ey.sig", "Bearer")):
        file.write_text(token)
        assert Credentials(file, ENDPOINT, Provider()).header() == f"{scheme} {token}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_a_refused_client_is_not_tried_again(file, status):
    file.write_text(CLIENT)
    with pytest.raises(TokenError, match=str(status)):
        Credentials(file, ENDPOINT, Provider((status, {"error": "a-secret"}))).header()


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}), (429, {}), (200, {}), (200, []), granted(5), granted("a\nb"), granted(""),
        granted("one", "soon"),
    ],
)  # fmt: skip
def test_an_answer_without_a_token_is_a_failure(file, answer):
    file.write_text(CLIENT)
    with pytest.raises(FetchError) as raised:
        Credentials(file, ENDPOINT, Provider(answer)).header()
    assert "a-secret" not in str(raised.value)


def test_a_secret_is_not_sent_to_a_url_that_is_refused(file):
    file.write_text(CLIENT + 'token_url = "http://idp.example/token"\n')

    def refuse(_url):
        raise ValueError("must be an https:// URL")

    provider = Provider()
    with pytest.raises(ValidationError, match="token_url must be"):
        Credentials(file, ENDPOINT, provider, refuse).header()
    file.write_text(CLIENT)
    with pytest.raises(ValidationError, match="must have token_url"):
        Credentials(file, TokenEndpoint(None), provider).header()
    assert provider.requests == []

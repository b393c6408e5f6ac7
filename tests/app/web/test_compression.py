"""Compression: pages, scripts and styles, for clients that accept gzip."""

import gzip

import pytest

from tests.support.tokens import bearer

ACCEPT = {"Accept-Encoding": "gzip, br"}


@pytest.mark.parametrize("path", ["/docs", "/static/page.css", "/static/dashboard.js"])
def test_pages_and_their_files_are_compressed(client, path):
    with client.get(path) as plain, client.get(path, headers=ACCEPT) as packed:
        body = plain.data
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.data) == body
        assert int(packed.headers["Content-Length"]) == len(packed.data) < len(body) / 2
        assert "Content-Encoding" not in plain.headers
        assert "Accept-Encoding" in plain.headers["Vary"]


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0"])
def test_a_client_without_gzip_gets_the_body_itself(client, accepted):
    response = client.get("/docs", headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in response.headers


def test_reports_are_left_as_they_are(client):
    """Proxies compress them; their ETag is that of the body."""
    response = client.get("/api/v1/analytics/tokens?days=90", headers=bearer() | ACCEPT)
    assert "Content-Encoding" not in response.headers


def test_a_file_that_is_unchanged_is_not_sent_again(client):
    with client.get("/static/page.css", headers=ACCEPT) as first:
        etag = first.headers["ETag"]
    with client.get("/static/page.css", headers=ACCEPT | {"If-None-Match": etag}) as again:
        assert (again.status_code, again.data) == (304, b"")

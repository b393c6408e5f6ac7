"""Files that browsers and crawlers request by themselves."""

from flask import Blueprint, Response, current_app

bp = Blueprint("files", __name__)

MAX_AGE_SECONDS = 24 * 3600
_ROBOTS = "User-agent: *\nDisallow: /\n"


@bp.get("/favicon.ico")
def icon() -> Response:
    """The icon of the pages, for documents that name none."""
    with current_app.open_resource("static/icon.svg") as file:
        return _public(Response(file.read(), mimetype="image/svg+xml"))


@bp.get("/robots.txt")
def robots() -> Response:
    """Keep crawlers away: every page needs a sign-in."""
    return _public(Response(_ROBOTS, mimetype="text/plain"))


def _public(response: Response) -> Response:
    response.cache_control.public = True
    response.cache_control.max_age = MAX_AGE_SECONDS
    return response

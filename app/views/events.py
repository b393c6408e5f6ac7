"""Taking events in: ``POST /api/v1/events``."""

from typing import Any

import msgspec
from flask import Blueprint, Response, request

from app import auth, params
from app.errors import ValidationError
from app.events import Batch, parse_batch
from app.ingest import record_events
from app.views.bodies import event_texts
from app.views.web import json_response, services

bp = Blueprint("events", __name__, url_prefix="/api/v1/events")
bp.before_request(auth.authenticate)


@bp.post("")
def post_events() -> Response:
    """Store a batch; the answer, 202, comes after the commit."""
    tenant_id = auth.writing_tenant()
    skip = params.skip_invalid(request.args)
    batch = parse_batch(event_texts(request), tenant_id, services().clock())
    if batch.rejected and not skip:
        raise ValidationError(
            f"{batch.rejected} of {batch.received} events refused, none stored",
            {"errors": _errors(batch)},
        )
    recorded = record_events(services().database, batch.events)
    body: dict[str, Any] = recorded._asdict()
    if skip:
        body |= {"received": batch.received, "rejected": _errors(batch)}
    return json_response(body, 202)


def _errors(batch: Batch) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(error) for error in batch.errors]

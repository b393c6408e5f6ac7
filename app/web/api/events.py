"""Events: ``POST /api/v1/events`` stores a batch."""

import msgspec
from flask import Blueprint, Response, g, request

from app.errors import ValidationError
from app.intake.events import parse_batch
from app.intake.store import store_events
from app.telemetry import metrics
from app.web import params, rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import event_texts
from app.web.api.schemas import Receipt
from app.web.context import services
from app.web.responses import json_response

bp = Blueprint("events", __name__, url_prefix="/api/v1/events")
bp.before_request(access.authenticate)
bp.before_request(rate_limit.count_request)
bp.before_request(access.require_events_write)


@bp.post("")
def post_events() -> Response:
    """Store a batch of events. The response, 202, is sent after the commit."""
    skip = params.skip_invalid(params.arguments())
    settings = services().settings
    texts = event_texts(request, settings.max_body_bytes, settings.max_batch_events)
    batch = parse_batch(texts, g.tenant_id, services().clock(), settings.max_event_bytes)
    if batch.rejected and not skip:
        # Valid events are refused too: a batch is stored whole or not at all.
        _count_events(refused=batch.received)
        raise ValidationError(
            f"{batch.rejected} of {batch.received} events are invalid, so none was stored;"
            " correct those in details.errors",
            {"errors": batch.errors},
        )
    recorded = store_events(services().database, batch.events)
    _count_events(recorded.accepted, recorded.duplicates, batch.rejected)
    rejected = batch.errors if skip else msgspec.UNSET
    receipt = Receipt(batch.received, recorded.accepted, recorded.duplicates, rejected)
    return json_response(receipt, 202)


def _count_events(accepted: int = 0, duplicates: int = 0, refused: int = 0) -> None:
    metrics.count_events(accepted=accepted, duplicates=duplicates, refused=refused)
    request_log.note(accepted=accepted, duplicates=duplicates, refused=refused)

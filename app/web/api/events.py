"""Events: ``POST /api/v1/events`` stores a batch."""

from zoneinfo import ZoneInfo

import msgspec
from flask import Blueprint, Response, g, request

from app.errors import ValidationError
from app.intake.events import Batch, parse_batch
from app.intake.formats import Format, Options
from app.intake.store import store_events
from app.telemetry import metrics
from app.web import params, rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import event_texts
from app.web.api.records import format_of, record_batch
from app.web.api.schemas import Receipt
from app.web.context import services
from app.web.responses import json_response

bp = Blueprint("events", __name__, url_prefix="/api/v1/events")
bp.before_request(access.authenticate)
bp.before_request(rate_limit.count_request)
bp.before_request(access.require_events_write)


@bp.post("")
def post_events() -> Response:
    """Store a batch of events. The response, 202, is sent after the commit.

    With ``format``, the body has records of a provider's log. Records that are not issuances are
    counted in ``skipped``.
    """
    arguments = params.arguments()
    skip = params.skip_invalid(arguments)
    file_format = format_of(request, params.file_format(arguments))
    batch = _events() if file_format is None else _records(file_format, params.zone(arguments))
    if batch.rejected and not skip:
        # Valid events are refused too: a batch is stored whole or not at all.
        _count_events(refused=batch.received - batch.skipped.total())
        raise ValidationError(
            f"{batch.rejected} of {batch.received} events are invalid, so none was stored;"
            " correct those in details.errors",
            {"errors": batch.errors},
        )
    recorded = store_events(services().database, batch.events)
    _count_events(recorded.accepted, recorded.duplicates, batch.rejected)
    receipt = Receipt(
        batch.received,
        recorded.accepted,
        recorded.duplicates,
        batch.errors if skip else msgspec.UNSET,
        msgspec.UNSET if file_format is None else dict(batch.skipped),
    )
    return json_response(receipt, 202)


def _events() -> Batch:
    """Events of this service: one, an array, or one a line."""
    settings = services().settings
    texts = event_texts(request, settings.max_body_bytes, settings.max_batch_events)
    return parse_batch(texts, g.tenant_id, services().clock(), settings.max_event_bytes)


def _records(file_format: Format, zone: ZoneInfo | None) -> Batch:
    """Records of a provider's log, in its format."""
    settings = services().settings
    options = Options(
        g.tenant_id,
        settings.max_event_bytes,
        max_document_bytes=settings.max_body_bytes,
        zone=zone,
        organizations=services().organizations,
    )
    batch = record_batch(request, file_format, options, services().clock(), settings)
    request_log.note(format=file_format.name, skipped=batch.skipped.total())
    return batch


def _count_events(accepted: int = 0, duplicates: int = 0, refused: int = 0) -> None:
    metrics.count_events(accepted=accepted, duplicates=duplicates, refused=refused)
    request_log.note(accepted=accepted, duplicates=duplicates, refused=refused)

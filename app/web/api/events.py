"""Taking events in: ``POST /api/v1/events``."""

import msgspec
from flask import Blueprint, Response, request

from app.errors import ValidationError
from app.intake.events import parse_batch
from app.intake.store import record_events
from app.telemetry import metrics
from app.web import params
from app.web import rate_limit as limits
from app.web import request_log as observe
from app.web.api import access
from app.web.api.bodies import event_texts
from app.web.api.schemas import Receipt
from app.web.context import services
from app.web.params import arguments
from app.web.responses import json_response

bp = Blueprint("events", __name__, url_prefix="/api/v1/events")
bp.before_request(access.authenticate)
bp.before_request(limits.count_request)


@bp.post("")
def post_events() -> Response:
    """Store a batch; the answer, 202, comes after the commit."""
    tenant_id = access.writing_tenant()
    skip = params.skip_invalid(arguments())
    settings = services().settings
    texts = event_texts(request, settings.max_body_bytes, settings.max_batch_events)
    batch = parse_batch(texts, tenant_id, services().clock())
    if batch.rejected and not skip:
        # All of them: a batch is stored whole or not at all.
        _note(refused=batch.received)
        raise ValidationError(
            f"{batch.rejected} of {batch.received} events refused, none stored",
            {"errors": batch.errors},
        )
    recorded = record_events(services().database, batch.events)
    _note(recorded.accepted, recorded.duplicates, batch.rejected)
    rejected = batch.errors if skip else msgspec.UNSET
    return json_response(
        Receipt(batch.received, recorded.accepted, recorded.duplicates, rejected), 202
    )


def _note(accepted: int = 0, duplicates: int = 0, refused: int = 0) -> None:
    metrics.count_events(accepted=accepted, duplicates=duplicates, refused=refused)
    observe.note(accepted=accepted, duplicates=duplicates, refused=refused)

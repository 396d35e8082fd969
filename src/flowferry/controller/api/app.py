"""The operations. Each hands over to the backend; nothing is decided here."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query
from fastapi.responses import Response, StreamingResponse

from flowferry.controller.api import models, problems
from flowferry.controller.api.backend import Backend, Json
from flowferry.controller.api.metrics import CONTENT_TYPE, Metrics

#: Seconds that one request may wait for a handover.
LONGEST_WAIT = 60.0


def create(backend: Backend, metrics: Metrics, version: str) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="Flowferry controller",
        version=version,
        description="Moves live flows between network function instances.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its pages would load scripts from elsewhere
        redoc_url=None,
    )
    problems.install(app)
    app.include_router(_reading(backend), prefix="/v1", responses=problems.RESPONSES)
    app.include_router(_changing(backend), prefix="/v1", responses=problems.RESPONSES)

    @app.get("/metrics", tags=["controller"], response_class=Response)
    async def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return app


def _reading(backend: Backend) -> APIRouter:
    reading = APIRouter()

    @reading.get("/status", tags=["controller"])
    async def status() -> Json:
        """Name, version and numbers of things."""
        return backend.status()

    @reading.get("/switches", tags=["controller"])
    async def switches() -> Json:
        """Switches, connected or not."""
        return {"switches": backend.switches()}

    @reading.get("/groups", tags=["controller"])
    async def groups() -> Json:
        """Groups."""
        return {"groups": backend.groups()}

    @reading.get("/instances", tags=["instances"], response_model=models.Instances)
    async def instances() -> Json:
        """Instances."""
        return {"instances": backend.instances()}

    @reading.get("/rules", tags=["rules"], response_model=models.Rules)
    async def rules() -> Json:
        """Rules, highest first."""
        return {"rules": backend.rules()}

    @reading.get(
        "/handovers",
        tags=["handovers"],
        response_model=models.Handovers,
        response_model_exclude_unset=True,
    )
    async def handovers() -> Json:
        """Handovers, latest first."""
        return {"handovers": backend.handovers()}

    @reading.get("/handovers/{number}", tags=["handovers"], response_model=models.Handover)
    async def handover(
        number: int, wait: Annotated[float | None, Query(ge=0, le=LONGEST_WAIT)] = None
    ) -> Json:
        """One handover with its timeline; with `wait`, when it is over or the seconds are."""
        if wait is None:
            return backend.handover(number)
        return await backend.wait(number, wait)

    @reading.get("/flows", tags=["flows"], response_model=models.Flows)
    async def flows(limit: Annotated[int, Query(ge=1, le=1_000_000)] = 1000) -> Json:
        """Flows and who serves them."""
        return await backend.flows(limit)

    @reading.get("/flows/where", tags=["flows"], response_model=models.Where)
    async def where(flow: Annotated[str, Query(max_length=500)]) -> Json:
        """Who serves a flow."""
        return await backend.where(flow)

    @reading.get("/events", tags=["controller"], response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """Every event from now on (server-sent events)."""
        return StreamingResponse(
            _as_lines(backend.subscribe()),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    return reading


def _changing(backend: Backend) -> APIRouter:
    changing = APIRouter()

    @changing.post(
        "/handovers", tags=["handovers"], status_code=202, response_model=models.Handover
    )
    async def move(body: models.Move) -> Json:
        """Move all flows that match to an instance."""
        return await backend.move(**body.model_dump())

    @changing.post(
        "/handovers/{number}/abort",
        tags=["handovers"],
        status_code=202,
        response_model=models.Handover,
    )
    async def abort(number: int) -> Json:
        """Call a handover off; 409 when that is too late, or when it is over."""
        return await backend.abort(number)

    @changing.post("/rules", tags=["rules"], status_code=202, response_model=models.Handover)
    async def add_rule(body: models.NewRule) -> Json:
        """Add a rule; its flows move."""
        return await backend.move(**body.model_dump(), strategy=None, settling_ms=None)

    @changing.delete(
        "/rules/{number}", tags=["rules"], status_code=202, response_model=models.Handover
    )
    async def remove_rule(number: int) -> Json:
        """Remove a rule; its flows go where the next lower ones say."""
        return await backend.remove_rule(number)

    @changing.post(
        "/instances", tags=["instances"], status_code=201, response_model=models.Instance
    )
    async def add_instance(body: models.NewInstance) -> Json:
        """Add an instance."""
        return await backend.add_instance(body.model_dump())

    @changing.post("/instances/{name}/drain", tags=["instances"], status_code=202)
    async def drain(name: str, body: Annotated[dict[str, Any] | None, Body()] = None) -> Json:
        """Move everything off an instance."""
        return {"handovers": await backend.drain(name)}

    @changing.delete("/instances/{name}", tags=["instances"])
    async def remove_instance(name: str) -> Json:
        """Forget an instance that nothing leads to."""
        await backend.remove_instance(name)
        return {"removed": name}

    return changing


async def _as_lines(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[str]:
    yield ": flowferry\n\n"  # so that the listener knows that it is heard
    async for name, data in events:
        yield f"event: {name}\ndata: {json.dumps(data)}\n\n"

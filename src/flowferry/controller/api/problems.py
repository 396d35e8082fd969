"""Errors as problem documents (RFC 9457): `detail` is one line that says what to do."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flowferry.controller.api.backend import Refused
from flowferry.controller.api.models import Problem

#: What every operation may answer, for the description.
RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {
        "description": HTTPStatus(code).phrase,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for code in (404, 409, 422)
}


def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem document."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        content.model_dump(), status, headers, media_type="application/problem+json"
    )


def install(app: FastAPI) -> None:
    """Have every error of `app` answered so."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return answer(409, str(error))

    @app.exception_handler(LookupError)
    async def missing(_: Request, error: LookupError) -> JSONResponse:
        return answer(404, str(error.args[0]) if error.args else "there is no such thing")

    @app.exception_handler(ValueError)
    async def wrong(_: Request, error: ValueError) -> JSONResponse:
        return answer(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        more = len(error.errors()) - 1
        tail = f" (and {more} more)" if more else ""
        return answer(422, f"{where}: {first['msg']}; /v1/openapi.json describes the body{tail}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"{request.url.path} is nothing here; /v1/openapi.json lists what is"
        elif error.status_code == 405:
            detail = f"{request.method} is not possible on {request.url.path}"
        return answer(error.status_code, detail, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return answer(500, f"the controller failed ({type(error).__name__}); its log says more")

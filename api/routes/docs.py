"""The OpenAPI document and Swagger UI. All files are served locally, so the page works in a closed network."""

import html
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from api.json_documents import JsonResponse
from api.openapi import build_openapi
from core.errors import NotFound

home = APIRouter(include_in_schema=False)
router = APIRouter(include_in_schema=False)
"""Open: the document names no job, and the page must load before the user can enter a key."""

_ASSETS: Mapping[str, str] = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
}
# Swagger UI writes style attributes; it needs no inline script, and gets none.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="icon" href="/docs/favicon.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset].filter(Boolean),
  validatorUrl: null
});
"""


@home.get("/")
def get_index(request: Request) -> JsonResponse:
    """Links to the resources of the API."""
    links = {
        "jobs": "/v1/jobs",
        "catalog": "/v1/catalog",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "health": "/healthz",
        "ready": "/readyz",
    }
    return JsonResponse({"object": "service", "name": "basin", "version": request.app.version, "links": links})


@router.get("/openapi.json")
def get_openapi_document(request: Request) -> Response:
    """The OpenAPI 3.1 document; built at the first call, since that takes a moment."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = JsonResponse(build_openapi(request.app)).body
    return JsonResponse(cast("bytes", state.openapi))


@router.get("/docs")
def get_swagger_ui(request: Request) -> HTMLResponse:
    """Swagger UI."""
    page = _PAGE.format(title=html.escape(request.app.title))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/start.js")
def get_swagger_start() -> Response:
    """The script that starts Swagger UI; a separate file, so that the page needs no inline script."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/{name}")
def get_swagger_asset(name: str) -> FileResponse:
    """A file of Swagger UI, from the installed package that carries it."""
    package = find_spec("fastapi_offline")
    if name not in _ASSETS or package is None or package.origin is None:
        raise NotFound("There is no such file.")
    path = Path(package.origin).parent / "static" / name
    return FileResponse(path, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})

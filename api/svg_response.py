"""SVG pictures over HTTP: their parameters, and a response in which a browser runs nothing."""

import base64
import hashlib
from typing import Annotated, Any

from fastapi.responses import Response
from pydantic import Field

from api.paging import StrictQuery
from core.errors import FieldProblem, InvalidRequest
from core.plot.chart import AxisKind, Chart, Map, Style, Theme
from core.plot.draw import draw_picture
from core.plot.style import style_sheet
from core.plot.svg_document import TooLowError

MEDIA_TYPE = "image/svg+xml"
PICTURE: dict[str, Any] = {MEDIA_TYPE: {"schema": {"type": "string"}}}
"""The `content` of a picture in the OpenAPI document."""


class PictureQuery(StrictQuery):
    """The style of a picture."""

    width: Annotated[int, Field(ge=320, le=4000, description="pixels")] = 760
    height: Annotated[int | None, Field(ge=160, le=4000, description="pixels; by default what the panels need")] = None
    y: Annotated[
        AxisKind,
        Field(description="`auto` is logarithmic where positive values span more than two decades"),
    ] = "auto"
    theme: Annotated[Theme, Field(description="`auto` is light, and dark where the reader prefers that")] = "auto"


class SvgResponse(Response):
    """A picture. Its policy allows no script, no style but its own and no external resource."""

    media_type = MEDIA_TYPE

    def __init__(self, chart: Chart | Map, query: PictureQuery) -> None:
        """Draw the chart; raises InvalidRequest when the height is too small for it."""
        style = Style(query.width, query.height, query.theme)
        try:
            text = draw_picture(chart, style)
        except TooLowError as error:
            raise InvalidRequest(errors=(FieldProblem("/query/height", str(error)),)) from None
        digest = base64.b64encode(hashlib.sha256(style_sheet(query.theme).encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; sandbox"
        super().__init__(text, headers={"Content-Security-Policy": policy})

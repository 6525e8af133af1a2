"""HTML pages that are one file and need no network: a jinja2 template of a package, with plotly.js inside."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np


def render(package: str, template: str, data: Any, **values: Any) -> str:
    """The page as text; every text is escaped for where it stands.

    Parameters
    ----------
    package, template : str
        The template is this file of this package; it extends ``page.html.template``, which puts plotly.js and `data`
        into the page. The filter ``number(digits)`` writes infinite numbers as ∞ and unknown ones as –, ``json`` any
        value.
    data : JSON-like
        For the figures; numbers that are not finite become null.
    **values
        What else the template names.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    texts = {
        name: files(home).joinpath(name).read_text(encoding="utf-8")
        for home, name in (("molflow_sim.runs", "page.html.template"), (package, template))
    }
    pages = Environment(
        loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"number": _number, "json": lambda value: json.dumps(value, ensure_ascii=False)}
    plotly = Markup(get_plotlyjs().replace("</script", "<\\/script"))
    return pages.get_template(template).render(plotly=plotly, data=Markup(script_json(data)), **values)


def _number(x: float | None, digits: int) -> str:
    if x is None or np.isnan(x):
        return "–"
    return f"{x:.{digits}f}" if np.isfinite(x) else "∞"


def script_json(value: Any) -> str:
    """JSON that is safe inside a <script> element: no text in it can end the element or start a comment."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value

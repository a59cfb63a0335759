"""Values and documents of the management interface: ATOM entries and feeds around descriptions in XML."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from tests.servers.servicebus.entities import InvalidArgument

__all__ = [
    "ATOM",
    "CONNECT",
    "INSTANCE",
    "children",
    "document",
    "entry",
    "feed",
    "local",
    "parsed",
    "typed",
    "untyped",
]

ATOM = "http://www.w3.org/2005/Atom"
CONNECT = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = "http://www.w3.org/2001/XMLSchema"

for _prefix, _namespace in (("atom", ATOM), ("i", INSTANCE), ("sb", CONNECT), ("d2p1", COUNTS)):
    ET.register_namespace(_prefix, _namespace)

_longest = timedelta.max // timedelta(seconds=1)
_endless = 10675199 * 86400  # the longest time span of .NET in whole days: never
_duration = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def duration(text: str) -> float:
    """Seconds of an ISO 8601 duration in days and less. Raises `InvalidArgument`."""
    found = _duration.fullmatch(text)
    if found is None or text in ("P", "PT"):
        raise InvalidArgument(f"{text!r} is no duration; write one like PT1M")
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    whole = days * 86400 + hours * 3600 + minutes * 60 + seconds
    return math.inf if whole >= _endless else whole


def duration_text(seconds: float) -> str:
    """The opposite."""
    if seconds >= _endless:
        return "P10675199DT2H48M5.4775807S"
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = f"{int(hours)}H" * bool(hours) + f"{int(minutes)}M" * bool(minutes)
    if rest or not (parts or days):
        parts += f"{rest:g}S"
    return "P" + f"{int(days)}D" * bool(days) + f"T{parts}" * bool(parts)


def time_text(when: float) -> str:
    """A time, given in seconds since 1970."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def truth(text: str) -> bool:
    """Raises `InvalidArgument`."""
    if text.lower() not in ("true", "false"):
        raise InvalidArgument(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def whole(text: str) -> int:
    """Raises `InvalidArgument`."""
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"{text!r} is no whole number") from None


def truth_text(value: bool) -> str:
    return "true" if value else "false"


def local(element: Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def children(element: Element) -> dict[str, Element]:
    """By their names."""
    return {local(child): child for child in element}


def parsed(body: bytes) -> Element:
    """The description inside an entry. Raises `InvalidArgument` if there is none."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError as error:
        raise InvalidArgument(f"the body is no XML: {error}") from None
    for element in root.iter():
        if local(element) == "content" and len(element):
            return element[0]
    raise InvalidArgument("the body has no content")


def typed(values: Mapping[str, Any], parent: Element) -> None:
    """Put values of several types into an element."""
    for name, value in values.items():
        pair = SubElement(parent, f"{{{CONNECT}}}KeyValueOfstringanyType")
        SubElement(pair, f"{{{CONNECT}}}Key").text = name
        kind, text = _typed_text(value)
        element = SubElement(pair, f"{{{CONNECT}}}Value", {f"{{{INSTANCE}}}type": f"d6p1:{kind}"})
        element.set("xmlns:d6p1", SCHEMA)
        element.text = text


def untyped(parent: Element) -> dict[str, Any]:
    """The opposite. Raises `InvalidArgument` for a type that is not known."""
    values = {}
    for pair in parent:
        parts = children(pair)
        kind = parts["Value"].get(f"{{{INSTANCE}}}type", "string").rpartition(":")[2]
        text = parts["Value"].text or ""
        if kind not in _readers:
            raise InvalidArgument(f"{parts['Key'].text}: the type {kind!r} is not known")
        values[parts["Key"].text or ""] = _readers[kind](text)
    return values


_readers: dict[str, Callable[[str], Any]] = {
    "string": str,
    "int": whole,
    "long": whole,
    "boolean": truth,
    "double": float,
    "dateTime": datetime.fromisoformat,
    "duration": lambda text: timedelta(seconds=min(duration(text), _longest)),
}


def _typed_text(value: Any) -> tuple[str, str]:
    if isinstance(value, bool):
        return "boolean", truth_text(value)
    if isinstance(value, int):
        return ("int" if value < 1 << 31 else "long"), str(value)
    if isinstance(value, float):
        return "double", repr(value)
    if isinstance(value, datetime):
        return "dateTime", value.isoformat()
    if isinstance(value, timedelta):
        return "duration", duration_text(value.total_seconds())
    return "string", str(value)


def entry(base: str, path: str, title: str, description: Element, created: float, updated: float) -> Element:
    """An entry of one thing; `base` is the URL before its path."""
    root = Element(f"{{{ATOM}}}entry")
    _texts(root, id=f"{base}{path}", title=title, published=time_text(created), updated=time_text(updated))
    _texts(SubElement(root, f"{{{ATOM}}}author"), name=base.partition("://")[2].partition(":")[0])
    SubElement(root, f"{{{ATOM}}}link", {"rel": "self", "href": f"{base}{path}"})
    SubElement(root, f"{{{ATOM}}}content", {"type": "application/xml"}).append(description)
    return root


def feed(base: str, path: str, title: str, entries: Iterable[Element], next_query: str | None, now: float) -> Element:
    """A page of entries, with a link to the next one if there is more."""
    root = Element(f"{{{ATOM}}}feed")
    _texts(root, id=f"{base}{path}", title=title, updated=time_text(now))
    SubElement(root, f"{{{ATOM}}}link", {"rel": "self", "href": f"{base}{path}"})
    if next_query is not None:
        SubElement(root, f"{{{ATOM}}}link", {"rel": "next", "href": f"{base}{path}?{next_query}"})
    root.extend(entries)
    return root


def document(root: Element) -> bytes:
    """As it goes over the wire."""
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _texts(parent: Element, **texts: str) -> None:
    for name, text in texts.items():
        SubElement(parent, f"{{{ATOM}}}{name}").text = text

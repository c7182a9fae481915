"""A drawing of matplotlib's as SVG that stands inside a page and takes its colours and letters.

matplotlib writes colours as hexadecimal numbers. Those of ``INK`` are stand-ins that nobody draws with; each becomes a CSS
variable, so that one drawing serves a light page, a dark one and paper. What an SVG file carries besides the drawing
(metadata with addresses, namespaces, a style sheet for all elements) is left out: a page must refer to nothing outside it.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By the name of the CSS variable: letters, lines beside the drawing, and four that tell series apart.
INK = {
    "ink": "#00000a",
    "muted": "#00000b",
    "grid": "#00000c",
    "c1": "#00000d",
    "c2": "#00000e",
    "c3": "#00000f",
    "c4": "#00001a",
}
WIDTH = 5.4  # inches, of 72 units each
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a label's name is a dollar
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK["muted"],
    "axes.labelcolor": INK["ink"],
    "text.color": INK["ink"],
    "xtick.color": INK["muted"],
    "ytick.color": INK["muted"],
    "xtick.labelcolor": INK["ink"],
    "ytick.labelcolor": INK["ink"],
    "grid.color": INK["grid"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", re.DOTALL)


def svg(name: str, draw: Callable[["Axes"], None], height: float = 3.0) -> str:
    """The ``<svg>`` element of what ``draw`` draws; ``name`` is its own in the page. Drawn again it has the same bytes."""
    import matplotlib as mpl  # slow to import, and only wanted here
    from matplotlib.figure import Figure

    drawn = io.StringIO()
    with mpl.rc_context(_SETTINGS | {"svg.hashsalt": name}), warnings.catch_warnings():
        # The letters are the page's: that matplotlib's own font lacks some of them is nobody's concern.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inside(drawn.getvalue(), name)


def _inside(file: str, name: str) -> str:
    """The drawing of an SVG file as part of a page."""
    drawing = _LEFT_OUT.sub("", file[file.index("<svg") :].strip())
    tag, rest = drawing.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', tag)
    assert box is not None  # noqa: S101  matplotlib writes one
    # Two drawings on a page would otherwise share names, and one would be clipped as the other is.
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", rest.replace("xlink:href", "href"))
    rest = re.sub(r" font-family: [^;\"]*;?", "", rest)
    for variable, color in INK.items():
        rest = rest.replace(color, f"var(--{variable})")
    # Words for it stand beside it; nobody wants its ticks read out one by one.
    return f'<svg {box[0]} aria-hidden="true">' + re.sub(r"\n\s*", "\n", rest)

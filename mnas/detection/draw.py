"""Draw boxes with names and scores on a picture."""

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mnas.detection.detections import ImageDetections
from mnas.predict.annotate import shortened

Colour = tuple[int, int, int]
TRUE: Colour = (46, 160, 67)
"""Colour of true boxes beside those of a detector."""
WRONG: Colour = (218, 54, 51)
"""Colour of a detection without a true box, or of a true box without a detection."""
_TEXT: Colour = (255, 255, 255)
_GOLDEN = 0.618034  # steps of the hue: neighbouring classes differ most
_NAME_WIDTH = 220


def colour_of(label: int) -> Colour:
    """Return the colour of a class."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + label * _GOLDEN) % 1, 0.42, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(
    picture: Image.Image, detections: ImageDetections, classes: Sequence[str], *, scale: float = 1.0
) -> Image.Image:
    """Return a copy of the picture (RGB) with the detections, the most certain on top.

    Args:
        scale: pixels of the picture for each pixel of the image that the boxes refer to.
    """
    texts = [f"{classes[label]} {score:.0%}" for label, score in zip(detections.labels, detections.scores, strict=True)]
    colours = [colour_of(int(label)) for label in detections.labels]
    order = range(len(texts) - 1, -1, -1)
    return with_boxes(
        picture, detections.boxes[list(order)] * scale, [texts[i] for i in order], [colours[i] for i in order]
    )


def with_longer_side(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture, enlarged or reduced to this longer side, in pixels."""
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def with_boxes(
    picture: Image.Image, boxes: npt.NDArray[np.float32], texts: Sequence[str], colours: Sequence[Colour]
) -> Image.Image:
    """Return a copy of the picture with boxes (N, 4), each with a text above its upper edge; later ones on top."""
    canvas = picture.copy()
    draw = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    width = max(1, round(side / 300))
    font = ImageFont.load_default(max(10, round(side / 45)))
    for (x0, y0, x1, y1), text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        x1, y1 = max(x0 + 1, x1), max(y0 + 1, y1)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=width)
        if not text:
            continue
        text = shortened(text, font, _NAME_WIDTH)
        begin, above, end, below = draw.textbbox((x0, y0), text, font=font, anchor="lb")
        lift = min(0.0, above)  # a box at the upper edge has its text inside
        draw.rectangle((begin, above - lift, end + 2 * width, below - lift), fill=colour)
        draw.text((x0 + width, y0 - lift), text, fill=_TEXT, font=font, anchor="lb")
    return canvas

"""Draw a picture with the predictions of a model below it."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mnas.predict.info import Prediction
from mnas.text import NAME_CHARS, clean

SIDE = 800
"""Longest side of an annotated picture, in pixels."""
_WIDTH = 360  # smallest width, so that names have room
_FONT = 18
_LINE = 28
_MARGIN = 12
_BAR, _BAR_OF_FIRST, _TEXT, _GROUND = (205, 216, 230), (140, 190, 150), (20, 20, 20), (255, 255, 255)


def annotated(picture: Image.Image, predictions: Sequence[Prediction]) -> Image.Image:
    """Return `picture` (RGB) with a line below it for each prediction: a bar, the name and the probability."""
    width = max(picture.width, _WIDTH)
    height = picture.height + 2 * _MARGIN + _LINE * len(predictions)
    canvas = Image.new("RGB", (width, height), _GROUND)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT)
    room = width - 2 * _MARGIN
    for row, prediction in enumerate(predictions):
        top = picture.height + _MARGIN + row * _LINE
        length = round(room * min(max(prediction.probability, 0.0), 1.0))
        if length:
            colour = _BAR if row else _BAR_OF_FIRST
            draw.rectangle((_MARGIN, top + 2, _MARGIN + length, top + _LINE - 3), fill=colour)
        share = f"{100 * prediction.probability:.1f} %"
        share_width = font.getlength(share)
        name = shortened(prediction.label, font, room - share_width - 3 * _MARGIN)
        draw.text((_MARGIN + 6, top + _LINE // 2), name, fill=_TEXT, font=font, anchor="lm")
        draw.text((width - _MARGIN - 6, top + _LINE // 2), share, fill=_TEXT, font=font, anchor="rm")
    return canvas


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Return `text`, cut with `...` where it is wider than `room` pixels."""
    text = clean(text, NAME_CHARS)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."

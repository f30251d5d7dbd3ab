#!/bin/bash
# Pillow 13.0.0: saving a palette label map as PNG turns the ignore label 255 into 15, or into a real class.
#
# Guess: PNG is lossless, and Pillow's manual says of the option `bits` "If omitted, the PNG writer uses 8 bits (256
# colors)", so a label map in mode P with a palette for its 11 classes and 255 for "ignore" comes back as it was.
# Behaviour: Pillow takes the bits from the length of the palette (up to 2, 4, 16 colours: 1, 2, 4 bits) and cuts each
# pixel to them, without a warning. 255 becomes 15 under 5 to 16 colours, 3 under 3 or 4 colours, 1 under 2. With
# exactly 16, 4 or 2 classes that is the last class. `bits=8` changes nothing. From 17 colours on all is well, and so
# it is with a palette filled up to 256 colours.
#
# Why it matters here: the same code keeps "ignore" for 19 classes (CelebAMask-HQ) and loses it for 11 (LaPa), and a
# border that no metric should see is then scored.
#
# Output seen (Python 3.11, Pillow 13.0.0, numpy 2.4.6):
#    2 colours: stored with 1 bits, 255 reads as 1
#    4 colours: stored with 2 bits, 255 reads as 3
#   11 colours: stored with 4 bits, 255 reads as 15
#   16 colours: stored with 4 bits, 255 reads as 15
#   17 colours: stored with 8 bits, 255 reads as 255
#   16 colours and bits=8: 255 reads as 15
#   16 classes, palette of 256 colours: 255 reads as 255
#   16 classes: the last class had 4.2 % of the pixels, after saving 37.5 %
# Exit code 1 if that changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "Pillow==13.0.0" "numpy==2.4.6"
venv/bin/python - <<'PY'
import numpy as np
from PIL import Image

IGNORE = 255


def label_map(classes):
    """A 24 x 48 map: equal stripes of all classes, a third of the picture (the border) is ignored."""
    labels = np.repeat(np.arange(48) * classes // 48, 24).reshape(48, 24).T.astype(np.uint8)
    labels[:8] = IGNORE
    return labels


def saved_and_read(labels, colours, **options):
    """The labels after a PNG file, and the bits that the file keeps for a pixel (byte 24 of a PNG)."""
    picture = Image.fromarray(labels)
    picture.putpalette([value for i in range(colours) for value in (i, 255 - i, 128)])
    picture.save("labels.png", **options)
    with open("labels.png", "rb") as file:
        bits = file.read(25)[24]
    return np.asarray(Image.open("labels.png")), bits


seen = {}
for colours in (2, 4, 11, 16, 17):
    labels = label_map(colours)
    read, bits = saved_and_read(labels, colours)
    assert (read[8:] == labels[8:]).all()
    seen[colours] = (bits, int(read[0, 0]))
    print(f"{colours:2} colours: stored with {bits} bits, 255 reads as {read[0, 0]}")
labels = label_map(16)
asked, _ = saved_and_read(labels, 16, bits=8)
print(f"16 colours and bits=8: 255 reads as {asked[0, 0]}")
whole, _ = saved_and_read(labels, 256)
print(f"16 classes, palette of 256 colours: 255 reads as {whole[0, 0]}")
read, _ = saved_and_read(labels, 16)
before, after = (labels == 15).mean(), (read == 15).mean()
print(f"16 classes: the last class had {100 * before:.1f} % of the pixels, after saving {100 * after:.1f} %")
assert seen == {2: (1, 1), 4: (2, 3), 11: (4, 15), 16: (4, 15), 17: (8, 255)}, seen
assert asked[0, 0] == 15
assert (whole == labels).all()
assert np.isclose(before, 2 / 48) and np.isclose(after, 2 / 48 + 1 / 3)
PY

"What tests of the command line share: waiting for another process, and folders that look like data"

import time


def wait_until(condition, seconds=30):
    "Poll until `condition()` holds; whether it did"
    limit = time.time() + seconds
    while time.time() < limit:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def celeba(folder):
    "An empty-handed CelebAMask-HQ folder: the layout, one file each"
    for name in ("CelebA-HQ-img/0.jpg", "CelebAMask-HQ-mask-anno/0/00000_skin.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return folder

"Made-up measurements of painted faces, as the score stage leaves them"

import numpy as np
import pandas as pd

from fairparse.core.records import QUALITY, REPLICATES, write_arrays, write_json, write_table
from fairparse.results.painting_records import OWN, SHARED, TABLE2_PERTURBATIONS

FID, KID, LPIPS = "fid2048_inception_test", "kid2048_inception_test", "lpips_alex"
DISTANCES = (FID, "fid2048_inception_train", KID, "kid2048_inception_train", LPIPS)
SETTINGS = (("none", 0.0), *((name, 0.3) for name in TABLE2_PERTURBATIONS))
MIOUS = {"miou_maps": 0.7, "miou_followed": 0.6, "miou_floor": 0.2, "miou_ceiling": 0.8}


def measure(
    maps,
    effects=None,  # metric -> added
    models=(OWN, SHARED),
    settings=SETTINGS,
    metrics=(*DISTANCES, *MIOUS),
    repetitions=2,
    halves=30,
    images=0.2,  # sd of a parser's own luck with the images
    seeds=0.2,  # and with the trainings
    n=120,
    seed=0,
    note="",
):
    """QUALITY and REPLICATES of one parser

    The whole crowd's luck (sd 5) is the same for all maps, as in reality.
    """
    shared = np.random.default_rng(99).normal(0, 5, halves)
    rng = np.random.default_rng([seed, sum(map(ord, maps))])
    cases = [(m, setting, metric) for m in models for setting in settings for metric in metrics]
    rows, parts = [], []
    for model, (perturbation, severity), metric in cases:
        scale = 0.001 if metric.startswith("miou") else 1
        base = MIOUS.get(metric, 100) + 20 * scale * severity
        base = base + (effects or {}).get(metric, 0) + scale * rng.normal(0, images)
        values = base + scale * rng.normal(0, seeds, repetitions)
        own = rng.normal(0, images, halves)  # an image's luck is the same for all repetitions
        reference = metric.rpartition("_")[2] if metric.startswith(("fid", "kid")) else "paired"
        about = (perturbation, severity, metric)
        for repetition, value in zip((-1, *range(repetitions)), (values.mean(), *values)):
            interval = (value - 10 * scale, value + 10 * scale)
            rows.append((model, maps, repetition, *about, value, *interval, n, 60, reference, note))
            parts += [
                (model, maps, repetition, *about, r, value + scale * (shared[r] + own[r]))
                for r in range(halves)
            ]
    return (
        pd.DataFrame(rows, columns=list(QUALITY.columns)),
        pd.DataFrame(parts, columns=list(REPLICATES.columns)),
    )


def save(folder, maps, face=0, change=None, **options):
    "A folder of the score stage"
    quality, replicates = measure(maps, **options)
    if change:
        quality, replicates = change(quality, replicates)
    write_table(quality, folder / maps / "quality.parquet", QUALITY)
    write_table(replicates, folder / maps / "replicates.parquet", REPLICATES)
    real = np.full((2, 4, 4, 3), face, np.uint8)
    write_arrays(folder / maps / "examples.npz", ids=np.array(["a", "b"]), real=real)
    write_json(folder / maps / "run.json", {"faces": "procedural faces"})

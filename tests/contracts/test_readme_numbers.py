"The README's table of real faces has the numbers of the published tables"

import pandas as pd
from conftest import ROOT

from fairparse.results.parser_styles import parser_title

PUBLISHED = ROOT / "outputs" / "published" / "study_real"


def cell(row, quantity):
    names = [f"{quantity}_difference{end}" for end in ("", "_low", "_high")]
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(getattr(row, name) for name in names))


def test_real_faces():
    unequal = pd.read_csv(PUBLISHED / "fairness_disparity.csv").query("attributes == 'demographic'")
    verdicts = pd.read_csv(PUBLISHED / "fairness_comparison.csv").groupby("parser").verdict
    page = (ROOT / "README.md").read_text(encoding="utf-8").replace("**", "")
    for row in unequal.itertuples():
        cells = [f"{row.overall:.1f}", f"{row.worst:.1f}", f"{row.gap:.1f}", ""]
        if row.parser != "single":
            cells = [cell(row, quantity) for quantity in ("overall", "worst", "gap")]
            own = verdicts.get_group(row.parser).tolist()
            cells.append(f"{own.count('better')} / {own.count('worse')}")
        line = " | ".join([f"| {parser_title(row.parser)}", *cells]).rstrip() + " |"
        assert line in page, line
        assert row.worst_group == "Skin_Dark"


def test_what_is_said_of_the_study_stands_in_its_records():
    "Goals, worlds and shares kept, which the README tells in sentences"
    study = ROOT / "outputs/published/study"
    said = (ROOT / "README.md").read_text()
    goals = pd.read_csv(study / "goals.csv").set_index("goal")
    for name in ("rare group", "overall"):
        row = goals.loc[name]
        assert f"{row.value:+.1f} ({row.low:+.1f} to {row.high:+.1f})" in said
    kept = pd.read_csv(study / "kept.csv").set_index(["parser", "part"])
    for part in ("all kinds", "held out of fair"):
        row = kept.loc[("fair", part)]
        assert f"{row.kept:.1f} % ({row.low:.1f} to {row.high:.1f})" in said
        assert f"{kept.kept['single', part]:.1f} %" in said
    worlds = pd.read_csv(study / "worlds.csv").set_index(["world", "quantity"])
    row = worlds.loc[("plenty", "gap")]
    assert f"{row.value:.1f} points ({row.low:.1f} to {row.high:.1f})" in said


def test_what_is_said_of_the_strong_recipe():
    iou = pd.read_csv(ROOT / "outputs/published/strong_held_out.csv").set_index("class").iou
    said = (ROOT / "README.md").read_text()
    assert f"reaches {iou['mean']:.1f} % mIoU on 500 others" in said
    assert f"earring {iou['earring']:.1f}, necklace {iou['necklace']:.1f})" in said
    everybody = pd.read_csv(ROOT / "outputs/published/strong_held_out.csv").images_with_class
    assert everybody.iloc[-1] == 500

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

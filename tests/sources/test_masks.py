"""Which rasters are masks of which scenes, by the names of products and usual names."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from rsir.sources.masks import beside, masks_by_name, sidecars

L8 = "LC08_L2SP_190028_20240506_20240511_02_T1_"
S2 = "T33UUP_20240506T100031_"
PLANET = "20240506_100031_1040_3B_"


@pytest.mark.parametrize(
    ("scenes", "masks"),
    [
        (["a.tif"], ["a_mask.tif", "a_cloud.tif", "a-clouds.TIF", "a.cloudmask.tif", "a_QA.tif"]),
        (["a.jpg"], ["a_mask.png", "a_cloud_mask.png"]),
        (["a_cloud.tif"], ["a_cloud_mask.tif"]),
        ([f"{L8}SR_B4.TIF"], [f"{L8}QA_PIXEL.TIF", f"{L8}QA_RADSAT.TIF", f"{L8}SR_QA_AEROSOL.TIF"]),
        ([f"{S2}B02_20m.jp2", f"{S2}TCI_20m.jp2"], [f"{S2}SCL_20m.jp2"]),
        (["HLS.S30.T17RLL.v2.0.B04.tif"], ["HLS.S30.T17RLL.v2.0.Fmask.tif"]),
        ([f"{PLANET}AnalyticMS.tif"], [f"{PLANET}udm2.tif", f"{PLANET}AnalyticMS_DN_udm.tif"]),
        (["B04.tif", "visual.tif"], ["SCL.tif", "QA_PIXEL.tif", "cloud_mask.tif"]),
        (["g/IMG_DATA/R10m/x.jp2"], ["g/QI_DATA/MSK_CLDPRB_20m.jp2", "g/QI_DATA/MSK_QUALIT.jp2"]),
        # Not masks: no scene beside them, in another folder, or names that only look like it.
        (["SCL.tif", "QA_PIXEL.tif", "b_mask.tif", "QI_DATA/MSK_CLDPRB_20m.jp2"], []),
        (["a.tif", "deep/a_mask.tif", "deep/SCL.tif"], []),
        (["cloud/cloud_001.jpg", "cloud/cloud_002.jpg", "cloud.jpg", "cloud/cloud.jpg"], []),
        (["a.tif", "b_mask.tif", "amask.tif", "unmask.tif", "mask_a.tif", "a_masks.tif"], []),
        (["ab.tif", "a_mask.tif", "a.b.tif"], []),
        (["h/QI_DATA/MSK_CLDPRB_20m.jp2", "g/IMG_DATA/x.jp2"], []),
        (["T33_B02.jp2", "T34_SCL_20m.jp2"], []),
    ],
)
@pytest.mark.parametrize("root", ["", "/data/x#1/", "s3://bucket/p/"])
def test_masks_by_name(scenes, masks, root):
    named = [root + name for name in (*scenes, *masks)]
    found = masks_by_name(reversed(named))
    assert set(found) == {root + name for name in masks}
    assert set(found.values()) <= {root + name for name in scenes}
    for mask, scene in found.items():
        if "QI_DATA" not in mask:
            assert PurePosixPath(mask).parent == PurePosixPath(scene).parent


def test_sidecars():
    names = {"a.tif", "a.tif.ovr", "a.tif.msk", "a.tif.msk.ovr", "a.tif.aux.xml", "b.tif.ovr", "c"}
    assert sidecars(names) == {
        "a.tif.ovr": ".ovr", "a.tif.msk": ".msk", "a.tif.msk.ovr": ".ovr",
        "a.tif.aux.xml": ".aux.xml",
    }  # fmt: skip


def test_beside():
    assert beside("/x/s/a.b.tif", "{folder}/../m/{stem}_m.tif") == "/x/s/../m/a.b_m.tif"
    assert beside("s3://b/a.tif", "{folder}/{stem}.png") == "s3://b/a.png"
    assert beside("/x/a.tif", "/fixed.tif") == "/fixed.tif"

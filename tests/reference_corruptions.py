"""The package imagecorruptions 1.1.2 (Michaelis et al. 2019, after Hendrycks and Dietterich 2019), made importable.

It was written for older libraries. Its import needs `pkg_resources`, which setuptools no longer has (it only
finds the pictures of `frost`, which we do not compare), and its Gaussian blur passes `multichannel=True`,
which scikit-image has renamed to `channel_axis=-1`. Both are supplied here; its arithmetic is untouched.
"""
import importlib.util
import sys
import types
import warnings


def load():
    "The module `imagecorruptions`; `ImportError` when it is not installed"
    missing = importlib.util.find_spec("pkg_resources") is None
    if missing:
        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].resource_filename = lambda package, path: path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import imagecorruptions
            from imagecorruptions import corruptions
    finally:
        if missing: del sys.modules["pkg_resources"]
    from skimage.filters import gaussian
    corruptions.gaussian = lambda image, sigma, multichannel: gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None)
    return imagecorruptions

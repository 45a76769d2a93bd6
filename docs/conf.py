"""The documentation site; CONTRIBUTING.md has the command that builds it.

The source folder is the root of the repository, so that links between its Markdown pages lead to
the same places in the site as on a code host. Pages of the API and links to them come from the
tables of docs/api.md, by site_pages.py.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

os.environ["COLUMNS"] = "90"  # of the help of commands
import site_pages  # noqa: E402

import bitops  # noqa: E402

project = "bitops"
author = copyright = "the bitops contributors"
version = release = bitops.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_gallery.gen_gallery",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "bench/*.md",
    "bench/results/*.md",
    "bitops/_kernels/README.md",
    "docs/*.md",
    "docs/*.rst",
    "docs/generated/*.rst",
    "docs/gallery/*.rst",
]

# A name in single backticks leads to its page, if it is a public one; else it is code.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", r"(?!bitops\.).*")]

myst_heading_anchors = 3

autodoc_typehints = "none"  # docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": ["docs/examples"],
    "gallery_dirs": ["docs/gallery"],
    "filename_pattern": r"\.py$",  # all are run
    "abort_on_example_error": True,
    "download_all_examples": False,
    "default_thumb_file": str(ROOT / "docs" / "drawings" / "thumbnail.svg"),
    "reset_argv": site_pages.Arguments(),
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
}

html_theme = "pydata_sphinx_theme"
html_title = "bitops"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["site"]
html_copy_source = False
html_sidebars = {"docs/start": [], "docs/how-it-works": []}  # there are no pages below them
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

linkcheck_ignore = [r"https://arxiv\.org/.*"]  # refuses robots at times
linkcheck_retries = 3


def setup(app):
    """Write the pages of the API before the sources are read, and link to them."""
    names = site_pages.write(ROOT / "docs" / "api.md", ROOT / "docs" / "generated")
    app.connect("source-read", lambda app, docname, source: site_pages.edit(docname, source))
    site_pages.connect(app, names)

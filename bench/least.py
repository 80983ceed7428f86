"""Do what no prefetch in Python with requests and lxml can do without: import them, and ask for each manifest once."""

import sys

import requests
from lxml import etree  # noqa: F401 - only imported

with requests.Session() as session:
    session.headers["Accept"] = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
    for url in sys.argv[1:]:
        session.head(url).raise_for_status()

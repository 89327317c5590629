"""python site_child.py FOLDER DOCUMENT_NUMBER TOOL_NUMBER: writes a quickstart site on the machine where it runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.system.quickstart import fill_site

if __name__ == "__main__":
    folder, document, tool = sys.argv[1:]
    sys.stdout.write(f"{fill_site(Path(folder), document_number=int(document), tool_number=int(tool))}\n")

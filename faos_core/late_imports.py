"""For libraries that take long to import and are imported in a thread when they are first needed."""

import threading

# Two threads that enter a circle of modules at different places see half of one another's: ImportError. Libraries
# share what they are made of, so this is one lock for all of them. Hold it for the import only.
IMPORTING = threading.Lock()

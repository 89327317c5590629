"""What the doctor finds at a control plane and no other part raises."""

from faos_core.errors import define

DATABASE_DAMAGED = define(
    "doctor.database_damaged",
    what="The database in {file} is damaged: {problem}.",
    why="SQLite's own check found it; the disk or somebody else wrote into it.",
    next_step="Stop the control plane, keep a copy of the folder, and restore the last backup.",
)
SCHEMA_MISSING = define(
    "doctor.schema_missing",
    what="The database has no tables of a control plane.",
    why="It was never started over it, or the URL names another database.",
    next_step="Check database_url, then start it: faos control-plane run",
)
AUTHORITY_OVER = define(
    "doctor.authority_over",
    what="The transport CA of this control plane holds until {until} only.",
    why="Every node's and the server's own certificate ends with it.",
    next_step="Plan to enrol the nodes anew with another control plane folder before that day.",
)
PORT_NOT_TAKEN = define(
    "doctor.port_not_taken",
    what="Nobody listens on {address}, which {setting} names.",
    why="The control plane does not run, or another file sets another address.",
    next_step="Start it: faos control-plane run --data {folder}",
)
PUBLIC_ADDRESS_DEAD = define(
    "doctor.public_address_dead",
    what="From this machine there is no connection to {address}, which join strings name ({reason}).",
    why="Nodes dial it. Some networks let nobody reach their own outer address from inside; others are misconfigured.",
    next_step="Try it from a site: faos doctor STRING",
)

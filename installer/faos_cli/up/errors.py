"""What can go wrong while everything is brought up on one machine."""

from faos_core.errors import define

ALREADY_UP = define(
    "up.already_running",
    what="Everything is up in {directory} already, under process {pid}.",
    why="One data folder serves one `faos up` at a time.",
    next_step="Use it (faos status), stop it with Ctrl-C or: kill {pid} — or take another folder: faos up --data DIR",
)
PORT_TAKEN = define(
    "up.port_taken",
    what="Port {port}, asked for with {option}, is taken.",
    why="Another program listens there on this machine.",
    next_step="See which: ss -ltnp 'sport = :{port}' — or leave {option} out: then a free port is chosen.",
)
ENROLLED_PORT_TAKEN = define(
    "up.enrolled_port_taken",
    what="Port {port} is taken, and the node here was enrolled with it.",
    why="Another program listens there, and the node would look for its control plane there.",
    next_step="See which (ss -ltnp 'sport = :{port}') and stop it — or begin anew elsewhere: faos up --data DIR",
)
ENROLLED_PORT_OTHER = define(
    "up.enrolled_port_other",
    what="The node here was enrolled with port {enrolled}, so --tunnel-port {port} would keep it from finding its"
    " control plane.",
    why="The address of the control plane is part of a node's enrolment.",
    next_step="Leave --tunnel-port out — or begin anew elsewhere: faos up --data DIR --tunnel-port {port}",
)
FOLDER_UNUSABLE = define(
    "up.folder_unusable",
    what="{path} cannot be written.",
    why="The system says: {reason}.",
    next_step="Make it writable for this user, or take another folder: faos up --data DIR",
)
DISK_FULL = define(
    "up.disk_full",
    what="There is no room left for {path}.",
    why="Databases, ledger and logs need about {needed_mb} MB; {free_mb} MB are free there.",
    next_step="Free some (df -h {path}), then run the same command again: it goes on from here.",
)
QUICKSTART_MISSING = define(
    "up.quickstart_missing",
    what="The example that `faos up` applies is not here.",
    why="There is no folder {folder}; it comes with the source, not with the package.",
    next_step="git clone the repository and run: make up",
)
CHILD_ENDED = define(
    "up.child_ended",
    what="The {title} stopped by itself. {what}",
    why="{why}",
    next_step="{next_step} (Its log: {log})",
)
CHILD_LATE = define(
    "up.child_late",
    what="The {title} was not ready within {seconds} seconds.",
    why="This machine may be very busy, or it waits for something.",
    next_step="Read its log ({log}), then run the same command again.",
)
OTHER_CONTROL_PLANE = define(
    "up.other_control_plane",
    what="The node in {node} belongs to another control plane than the one in {control_plane}.",
    why="One of the two folders was removed, or came from somewhere else.",
    next_step="Keep the node's data and begin anew beside it: mv {node} {node}.old, then run the same command again.",
)
REFUSED = define(
    "up.configuration_refused",
    what="The node refused the configuration: {state} {whose}.",
    why="{why}",
    next_step="See it in full: {command} describe node {node} (log: {log})",
)
NOT_HEALTHY = define(
    "up.not_healthy",
    what="The node did not take the configuration within {seconds} seconds; it is {state}.",
    why="This machine may be very busy, or the node waits for something.",
    next_step="Read its log ({log}), then run the same command again.",
)
CHECK_FAILED = define(
    "up.check_failed",
    what="It runs, but it did not do what it must: {failed}.",
    why="{why}",
    next_step="Look at it step by step: {command} run show {run_id} — then run the same command again.",
)

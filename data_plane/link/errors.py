"""What can be wrong with the configuration that a node keeps."""

from faos_core.errors import define

STATE_CORRUPT = define(
    "config.state_corrupt",
    what="The node's configuration state {path} is damaged: {reason}.",
    why="It holds which configurations are trusted and how old they may be, so the node does not guess at it.",
    next_step="Restore {folder} from a backup; or, with the control plane in reach, put it aside with "
    "'mv {folder} {folder}.damaged' and start the node again: it fetches the configuration anew.",
)
CONTENT_CORRUPT = define(
    "config.content_corrupt",
    what="A stored piece of configuration, {path}, is missing or damaged.",
    why="Its SHA-256 is not the one that it is stored under.",
    next_step="Restore {folder} from a backup; or, with the control plane in reach, put it aside with "
    "'mv {folder} {folder}.damaged' and start the node again: it fetches the configuration anew.",
)
METADATA_EXPIRED = define(
    "config.metadata_expired",
    what="The control plane offered configuration whose freshness has expired.",
    why="Its timestamp is too old, or this machine's clock is wrong. What runs goes on; nothing new is taken.",
    next_step="Compare the clocks (date -u) and have the control plane's operator look at its signing.",
)
OFFER_REJECTED = define(
    "config.rejected",
    what="The last configuration that was offered was refused.",
    why="What ran before still runs. The control plane shows the reason.",
    next_step="faos get nodes -o json",
)
APPROVAL_REQUIRED = define(
    "config.approval_required",
    what="The last configuration that was offered needs this site's own yes, so it was refused.",
    why="It has something new of a kind that site.toml does not admit (approval_required), or an agent that may do "
    "more than before. The log names it, at config.status. What ran before still runs.",
    next_step="To admit a kind, take its name out of approval_required in site.toml and start the node again; "
    "approval_required = [] admits all. Then have the change applied anew.",
)
OFFER_ROLLED_BACK = define(
    "config.rolled_back",
    what="The last configuration that was offered did not work here and was taken back.",
    why="The last known good one runs. The control plane shows the reason.",
    next_step="faos get nodes -o json",
)
OFFER_KILLED = define(
    "config.killed",
    what="This process ended twice while it activated or watched the same configuration.",
    why="That one is not tried again, and the last known good one runs. The control plane shows it as CRASHED.",
    next_step="Look into the node's log and the kernel's (journalctl -k) of that time, most often for lack of memory.",
)
NOTHING_RUNS = define(
    "config.nothing_runs",
    what="The last known good configuration cannot be made to run.",
    why="A model, a tool server or a folder of this site fails; the node's log says which. It is tried again.",
    next_step="Look at the log of the node for config.restore_failed.",
)

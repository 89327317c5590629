"""Error codes of a node's own identity."""

from faos_core.errors import define

NOT_JOINED = define(
    "node.not_joined",
    what="This node has not joined a site yet.",
    why="There is no identity in {directory}.",
    next_step="On the control plane: faos join-token create --site SITE. Then here: faos join STRING",
)
ALREADY_JOINED = define(
    "node.already_joined",
    what="This node is {node} of site {site!r} already.",
    why="One data folder holds one identity, and joining again would throw it away.",
    next_step="To make another node, choose another folder: faos join --data DIR STRING",
)
WRONG_SITE = define(
    "join_string.wrong_site",
    what="The join string is for site {actual!r}, not {wanted!r}.",
    why="A join token is bound to the site that it was made for.",
    next_step="Make one for this site: faos join-token create --site {wanted}",
)
IDENTITY_DAMAGED = define(
    "node.identity_damaged",
    what="The identity in {directory} cannot be read: {reason}.",
    why="One of its files was changed, cut, or not copied with the others.",
    next_step="Restore the folder from a backup, or move it away and join again: faos join STRING",
)
CERTIFICATE_EXPIRING = define(
    "certificate.expiring",
    what="Less than a tenth of this node's certificate's lifetime is left.",
    why="It asked for the next one many times, and got none: the control plane cannot be reached, or refuses.",
    next_step="Look at the link, and at the node's log: faos status",
)

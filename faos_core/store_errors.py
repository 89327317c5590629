"""What can go wrong with a plane's database, and what a person does about it."""

from faos_core.errors import FaosError, define

DISK_FULL = define(
    "store.disk_full",
    what="There is no space left for the database {database}.",
    why="The disk, or the quota of the user that runs the database, is full. Nothing acknowledged was lost.",
    next_step="Free space (see: df -h), then start again.",
)
UNAVAILABLE = define(
    "store.unavailable",
    what="The database {database} does not answer.",
    why="Another process holds it, it is restarting, or it cannot be reached. What was asked for was not written.",
    next_step="Try again. If it stays so: {look}",
)
UNCONFIRMED = define(
    "store.unconfirmed",
    what="The database {database} went away while it was writing, and has not come back.",
    why="Its answer was lost on the way: what was asked for was written as a whole, or not at all.",
    next_step="Ask again with the same request id, or look before repeating it. For the database: {look}",
)
CORRUPT = define(
    "store.corrupt",
    what="The database {database} is damaged.",
    why="Its pages do not hold together: a broken disk, or a file that is no database of FAOS.",
    next_step="Stop FAOS, keep a copy of the database, and restore the last backup.",
)
DISK_FAILED = define(
    "store.disk_failed",
    what="The disk refused to read or write the database {database}.",
    why="It may not be written to, or the disk is failing.",
    next_step="Look at its owner and mode (ls -l) and at the kernel log (dmesg) where the database is.",
)
CLOSED = define(
    "store.closed",
    what="The database {database} is not open.",
    why="FAOS is starting or stopping.",
    next_step="Try again when it runs.",
)
TRANSACTION_ENDED = define(
    "store.transaction_ended",
    what="A write to {database} ended the transaction that it shares with others.",
    why="This is a defect of FAOS. What of that batch was written is not known.",
    next_step="Report it, with the log.",
)
URL_UNSUPPORTED = define(
    "store.url_unsupported",
    what="{database} is no database that FAOS can use.",
    why="FAOS keeps its data in an SQLite file or in PostgreSQL.",
    next_step="Give a URL such as sqlite:////var/lib/faos/node.db or postgresql://faos@db.example.com/faos",
)
URL_MALFORMED = define(
    "store.url_malformed",
    what="The database's URL cannot be read.",
    why="It is not a URL, or an option in it is unknown. It is not shown here, because it may hold a password.",
    next_step="Give a URL such as postgresql://faos@db.example.com:5432/faos?passfile=/etc/faos/pgpass",
)
SCHEMA_NEWER = define(
    "store.schema_newer",
    what="The database {database} has schema {revision}, which this version of FAOS does not know.",
    why="A newer version has used it. An older one could damage what it wrote.",
    next_step="Install the newer version again, or restore the backup from before the upgrade.",
)
LOGIN_REFUSED = define(
    "store.login_refused",
    what="The database {database} refused to let FAOS in.",
    why="The user or the password is wrong, or pg_hba.conf does not admit this user from here.",
    next_step="Try it by hand: psql {database} -c 'select 1'. Passwords go into PGPASSFILE, ?passfile= or PGPASSWORD.",
)
TLS_FAILED = define(
    "store.tls_failed",
    what="No encrypted connection to the database {database} came up.",
    why="The server offers no TLS, or its certificate is not the one that the URL wants (sslmode, sslrootcert).",
    next_step="See what the server says: psql '{database}?sslmode=verify-full&sslrootcert=FILE' -c 'select 1'",
)
DATABASE_MISSING = define(
    "store.database_missing",
    what="There is no database {database}.",
    why="The server answers, and knows no database of that name.",
    next_step="Make it: createdb --template=template0 --encoding=UTF8 --owner=USER NAME",
)
NOT_PERMITTED = define(
    "store.not_permitted",
    what="FAOS may not do what it must in the database {database}.",
    why="Its user does not own the tables, or may not make them in the schema.",
    next_step="Let the user own its database: ALTER DATABASE name OWNER TO user",
)
READ_ONLY = define(
    "store.read_only",
    what="The database {database} takes no writes.",
    why="The server is a standby, or default_transaction_read_only is on.",
    next_step="Point the URL at the primary: several hosts with target_session_attrs=read-write find it themselves.",
)
TOO_MANY_CONNECTIONS = define(
    "store.too_many_connections",
    what="The database {database} has no connection left for FAOS.",
    why="Each FAOS process needs {needed}; the server, the user or the database is limited to fewer than are open.",
    next_step="Raise max_connections (or the user's CONNECTION LIMIT), or see who has them: pg_stat_activity",
)
SERVER_UNSUITABLE = define(
    "store.server_unsuitable",
    what="The database {database} cannot keep FAOS's promises.",
    why="{reason}",
    next_step="{remedy}",
)
TAKEN = define(
    "store.taken",
    what="Another node uses the database {database}.",
    why="A node's database is its own: two would take up each other's runs.",
    next_step="Give each node a database of its own, or stop the other node first.",
)
VALUE_REFUSED = define(
    "store.value_refused",
    what="The database cannot hold one of the values.",
    why="A text is too long or has a NUL character in it, or a number is too large.",
    next_step="Correct the request.",
)


def is_outage(error: FaosError) -> bool:
    """Whether the database is away for now: what waits for it may go on when it is back."""
    return error.code in (UNAVAILABLE, UNCONFIRMED)

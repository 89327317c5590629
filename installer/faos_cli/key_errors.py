"""What can go wrong with an operator's own keys, and with what they are asked to sign."""

from faos_core.errors import define

REFERENCE_MALFORMED = define(
    "key.reference_malformed",
    what="{reference} is no key that can be used here.",
    why="{reason}",
    next_step="Write file:PATH, hsm:ID?label=TOKEN or pkcs11:token=TOKEN;id=%02 — see: faos key show --help",
)
KEY_UNUSABLE = define(
    "key.unusable",
    what="The key {reference} cannot be used.",
    why="Its library says: {reason}.",
    next_step="Look whether it can be read at all: faos key show {reference}",
)
LIBRARY_MISSING = define(
    "key.library_missing",
    what="The key {reference} cannot be used on this machine.",
    why="The Python library for such keys is not installed.",
    next_step="Install it: pip install 'faos-hybrid[hsm]'",
)
MODULE_MISSING = define(
    "key.module_missing",
    what="The key {reference} cannot be reached.",
    why="{variable} must name the PKCS#11 library (.so) of the HSM or card. {reason}",
    next_step="Say where it is, e.g.: export {variable}=/usr/lib/softhsm/libsofthsm2.so",
)
SECRET_MISSING = define(
    "key.secret_missing",
    what="The {what} of {reference} is needed, and there is nobody to ask.",
    why="Standard input is no terminal, and {variable} is not set.",
    next_step="Run it on a terminal, or have the {what} in the environment variable {variable}.",
)
SECRET_WRONG = define(
    "key.secret_wrong",
    what="The {what} does not open {reference}.",
    why="The key, or its token, refuses it.",
    next_step="Try again with the right one; a token locks itself after a few wrong ones.",
)
PIN_LOCKED = define(
    "key.pin_locked",
    what="The token of {reference} is locked.",
    why="Too many wrong PINs were given.",
    next_step="Unlock it with its security officer's PIN, by its maker's own tool.",
)
FILE_OPEN = define(
    "key.file_open",
    what="The key file {file} is not used.",
    why="Others than its owner may read it, so it counts as known.",
    next_step="Make a new key; or, if nobody did, close it: chmod 600 {file}",
)
FILE_EXISTS = define(
    "key.file_exists",
    what="There is a file {file} already.",
    why="A key that is overwritten is gone for ever.",
    next_step="Choose another name.",
)
NOT_THE_PUBLISHER = define(
    "sign.not_the_publisher",
    what="The key {reference} is not the publisher's of tenant {tenant!r}.",
    why="It is {keyid}, and the tenant's root names {named}.",
    next_step="Sign with that key; or make this one the publisher's: faos tenant publisher set --key KEYREF",
)
NOT_THE_ROOT = define(
    "sign.not_the_root",
    what="The key {reference} did not sign the root that tenant {tenant!r} has. Nothing was signed.",
    why="It is {keyid}; the root that the control plane shows is another key's, or made up.",
    next_step="Take the root's own key: faos tenant publisher show says which it is.",
)
PREPARED_WRONG = define(
    "sign.prepared_wrong",
    what="The control plane asks for a signature on something else than you asked for. Nothing was signed.",
    why="{reason}",
    next_step="Do not sign before you know why. If versions differ (faos --version on both sides), make them the same.",
)
NEVER_SIGNED = define(
    "sign.never_signed",
    what="{count} resource(s) would be signed that you did not name, and that this key never signed: {listed}.",
    why="They stand at the control plane, and only its word says that they are what you want.",
    next_step="Look at them (faos get resources -o yaml), then vouch for them too: repeat the command with --adopt",
)
SEEN_NEWER = define(
    "sign.seen_newer",
    what="The control plane shows revision {number} of tenant {tenant!r}, older than this machine has seen.",
    why="Revision {seen} stood before ({file}); the control plane was restored from a backup, or holds it back.",
    next_step="Find out which. After a restore that was meant, remove the tenant's entry from that file.",
)
MEMORY_NOT_KEPT = define(
    "sign.memory_not_kept",
    what="{what} stands at the control plane; only this machine's record of it was not written.",
    why="{file}: {reason}. Without it, an older state could be shown to this key as if it were the newest.",
    next_step="See to it that you can write there, before this key signs again: ls -ld {folder}",
)
OTHER_TENANT = define(
    "sign.other_root",
    what="Tenant {tenant!r} has another first root than when this key last signed for it.",
    why="A root never changes its first version; this is another tenant of the same name, or a forgery ({file}).",
    next_step="If the tenant was made anew, remove its entry from that file; otherwise sign nothing.",
)

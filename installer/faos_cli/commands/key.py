"""faos key generate · faos key show"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from faos_cli.options import FILE, output_option

if TYPE_CHECKING:
    from securesystemslib.signer import Key


@click.group("key")
def key() -> None:
    """Keys of your own, which sign revisions as a tenant's publisher, or its roots."""


@key.command("generate")
@click.argument("file", type=FILE)
@click.option(
    "--type", "kind", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True, help="Kind of key."
)
@click.option("--no-passphrase", is_flag=True, help="Do not encrypt it; whoever reads the file has the key.")
def generate(file: Path, kind: str, no_passphrase: bool) -> None:
    """Make a private key in a file of mode 0600, encrypted by a passphrase that is asked for (or FAOS_KEY_PASSPHRASE).

    A key in an HSM or a card is made by its own tool, e.g.: pkcs11-tool --keypairgen --key-type EC:secp256r1 --id 02

    \b
    Examples:
      faos key generate publisher.key
      faos tenant publisher set --key file:publisher.key
    """
    from faos_cli.key_references import generate_file, new_passphrase

    public = generate_file(file, kind, "" if no_passphrase else new_passphrase())
    click.echo(f"key {public.keyid} made in {file}")
    click.echo(f"  next: faos tenant publisher set --key file:{file}", err=True)


@key.command("show")
@click.argument("keyref")
@output_option("text", "pem", "json")
def show(keyref: str, output: str) -> None:
    """Show the public part of a key: its id, as roots name it, and its PEM.

    \b
    KEYREF is one of
      file:PATH                    a PEM file; an encrypted one asks for its passphrase (or FAOS_KEY_PASSPHRASE)
      hsm:[ID][?label=TOKEN]       a key by PKCS#11; PYKCS11LIB names the library, FAOS_KEY_PIN may hold the PIN
      pkcs11:token=TOKEN;id=%02    the same by RFC 7512; ?module-path=LIBRARY may follow
    and, to sign with a key that the tenant's root names already, what securesystemslib knows: awskms:…, gcpkms:… .

    \b
    Examples:
      faos key show file:publisher.key
      faos key show hsm:2 -o pem > publisher.pem
      faos tenant create mercy --publisher-key publisher.pem
    """
    from faos_cli.key_references import open_key, pem_of
    from faos_cli.output import print_facts, print_json

    public = open_key(keyref).public_key
    if output == "pem":
        click.echo(pem_of(public), nl=False)
    elif output == "json":
        print_json(facts_of(public) | {"pem": pem_of(public)})
    else:
        print_facts(facts_of(public) | {"public": pem_of(public).strip()})


def facts_of(public: "Key") -> dict[str, str]:
    return {"key": public.keyid, "type": public.keytype, "scheme": public.scheme}

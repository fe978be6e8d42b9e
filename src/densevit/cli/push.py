"""``densevit push``: publish a model on the Hugging Face hub, or write the folder that would be published."""

from pathlib import Path
from typing import Annotated

import typer

from densevit.cli import options as shared


def push(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help='"default", a name of densevit models, a checkpoint, or hf://owner/name.'),
    ],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; created if it does not exist.")],
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, such as Apache-2.0; by default that of the checkpoint.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[
        str | None, typer.Option(help="Branch to commit to, which has to exist; main by default.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Only write the files into this folder, to look at them; nothing is uploaded.")
    ] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Publish a model on the Hugging Face hub: weights, config.json and a model card, in one commit.

    Log in with hf auth login, or set HF_TOKEN. A README.md there that a person wrote or changed is kept. Prints the
    address of the commit.
    """
    from densevit.inference.predictor import Predictor

    predictor = Predictor.load(model, device="cpu")
    if out is not None:
        typer.echo(str(predictor.save_pretrained(out, repo_id=repo, licence=licence, overwrite=overwrite)))
        return
    address = predictor.push_to_hub(
        repo,
        licence=licence,
        private=private or None,
        branch=branch,
        commit_message=message,
        overwrite=overwrite,
    )
    typer.echo(address)

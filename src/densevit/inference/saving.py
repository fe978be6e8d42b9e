"""How a predictor is written: as one checkpoint, as a folder in the form of the hub, or to a repository there."""

from pathlib import Path

from densevit.checkpoints.native import Bundle, Card, TrainedOn, save_bundle
from densevit.checkpoints.pretrained import push, save_folder
from densevit.errors import ConfigError
from densevit.inference.speed import SpeedConfig
from densevit.inference.speed_engine import check_savable
from densevit.inference_config import InferenceConfig, Protocol
from densevit.io import claim
from densevit.model import DenseModel
from densevit.tasks import Task


class Saving:
    """The methods of ``Predictor`` that write it; its attributes are described there.

    Of the speed switches, those that change the weights or ``fit`` are written; merging, engine, attention are not.
    """

    model: DenseModel
    tasks: dict[str, Task]
    fit: InferenceConfig
    card: Card
    protocol: Protocol | None
    trained_on: tuple[TrainedOn, ...]
    speed: SpeedConfig

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model as a densevit checkpoint: all heads, tasks, ``fit``, card and protocol.

        Args:
            path: ends in .safetensors; missing folders are made.
            overwrite: replace a file that densevit did not write, or that was changed since.

        Raises:
            ConfigError: if the path has another suffix, or an engine or another precision runs the model.
            DataError: if the file cannot be written, or belongs to somebody else.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ConfigError(f"{path} does not end in .safetensors, as densevit's checkpoints do; rename it")
        bundle = self._savable()
        claim([path], overwrite=overwrite)
        save_bundle(bundle, path)
        return path

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        licence: str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a folder as the Hugging Face hub keeps models: model.safetensors, config.json and README.md.

        The weights are a densevit checkpoint that needs neither of the other files, and predict the same to the bit.
        README.md is a model card with licence, metrics and provenance; one that a person wrote or changed is kept.

        Args:
            save_directory: the folder; created if necessary.
            repo_id: ``owner/name`` on the hub, for the lines of the card that load it.
            licence: of the weights, an SPDX identifier or words; by default that of the card.
            overwrite: replace files that densevit did not write, or that were changed since.

        Returns:
            The folder.

        Raises:
            ConfigError: if an engine or another precision runs the model, or the licence allows more than that of the
                weights which the model was made from.
            DataError: if a file cannot be written, or belongs to somebody else.
        """
        folder = Path(save_directory)
        return save_folder(self._savable(), folder, repo_id=repo_id, licence=licence, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        overwrite: bool = False,
    ) -> str:
        """Publish the files of ``save_pretrained`` on the Hugging Face hub, in one commit.

        A README.md there that a person wrote or changed is kept, and weights of another program are not replaced.

        Args:
            repo_id: ``owner/name``, or a name in your account; created if it does not exist.
            licence: of the weights, an SPDX identifier or words; by default that of the card.
            private: whether a new repository is private; by default as the owner's account is set.
            token: of the hub; by default that of ``hf auth login`` or of HF_TOKEN.
            branch: to commit to, which has to exist; "main" by default.
            commit_message: its first line.
            create_pr: open a pull request instead of committing.
            overwrite: replace a card that a person wrote, and weights of another program.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ConfigError: as ``save_pretrained``, or if this is no name of a repository.
            CheckpointError: if the hub cannot be reached or refuses, or the repository has weights of another program.
        """
        return push(
            self._savable(),
            repo_id,
            licence=licence,
            private=private,
            token=token,
            branch=branch,
            commit_message=commit_message,
            create_pr=create_pr,
            overwrite=overwrite,
        )

    def _savable(self) -> Bundle:
        check_savable(self.speed)
        return Bundle(self.model, self.tasks, self.fit, self.card, self.protocol, self.trained_on)

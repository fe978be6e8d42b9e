"""What the hub and its client raise, as messages that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from densevit.errors import CheckpointError, DensevitError


def import_hub() -> Any:
    """The module ``huggingface_hub``.

    Raises:
        CheckpointError: if it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            "huggingface_hub, which talks to the hub, is not installed; run `pip install huggingface_hub`, or write "
            "the files with save_pretrained(FOLDER)"
        ) from None
    return huggingface_hub


def no_connection() -> tuple[type[Exception], ...]:
    """What the client raises when the hub does not answer as it should: its base is httpx's, once that of requests."""
    from huggingface_hub import errors

    return errors.HfHubHTTPError.__bases__[0], OSError


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Make a ``CheckpointError`` of what goes wrong while a repository is written.

    Raises:
        CheckpointError: it names the repository, the reason, and what to do.
    """
    from huggingface_hub import errors

    try:
        yield
    except DensevitError:
        raise
    except errors.LocalTokenNotFoundError:
        raise CheckpointError(
            f"{repo_id} cannot be written without a token of the hub; run `hf auth login`, or set HF_TOKEN"
        ) from None
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repo_id} is no repository of the hub: {_first_line(error)}; give OWNER/NAME") from None
    except errors.OfflineModeIsEnabled:
        raise CheckpointError(
            f"{repo_id} cannot be written since HF_HUB_OFFLINE is set; unset it, or write the files with --out FOLDER "
            "(save_pretrained) and upload them later with `hf upload`"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{repo_id} has no such branch; create it on the hub, or leave the branch out") from None
    except errors.HfHubHTTPError as error:
        raise CheckpointError(_refusal(repo_id, error)) from None
    except (RuntimeError, ValueError) as error:  # the upload of one file; a card that the hub refuses
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise CheckpointError(f"{repo_id} was not written: {' '.join(str(cause).split())[:300]}") from error
    except no_connection() as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # of a file here
        raise CheckpointError(
            f"{repo_id} was not written, since the hub cannot be reached ({_first_line(error)}); go online, or write "
            "the files with --out FOLDER (save_pretrained) and upload them later with `hf upload`"
        ) from None


def _refusal(repo_id: str, error: Any) -> str:
    status = getattr(error.response, "status_code", None)
    said = str(getattr(error, "server_message", None) or "").strip()
    if status == 401:
        return f"{repo_id} was not written: the hub does not accept the token; run `hf auth login`, or set HF_TOKEN"
    if status in (403, 404):
        return (
            f"{repo_id} was not written: the token may not write there, or there is no such owner "
            f"({said or status}); use a token with write access, or a repository of your own"
        )
    if status in (409, 412):
        return f"{repo_id} was not written: somebody else has committed in the meantime; look at it and push again"
    return f"{repo_id} was not written: the hub answers {status} ({said or _first_line(error)}); try again later"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

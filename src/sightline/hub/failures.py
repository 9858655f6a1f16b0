"""Every way in which fetching from the hub fails, each with its next step for a person."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sightline.core.errors import (
    HubAccessError,
    HubDiskError,
    HubError,
    HubNotFoundError,
    HubOfflineError,
    SightlineError,
    nearest,
)
from sightline.hub.catalogue import catalogue_names
from sightline.hub.environment import cache_folder, endpoint


@contextmanager
def explained_failures(name: str, revision: str | None) -> Iterator[None]:
    """Every failure of the transfer as one of ours, with the next step."""
    try:
        yield
    except SightlineError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise _explained(error, name, revision) from error
    except Exception as error:
        # The HTTP client's own errors derive from Exception alone.
        if "HTTPError" in _kinds(error) or "TransportError" in _kinds(error):
            raise _explained(error, name, revision) from error
        raise


def _kinds(error: BaseException) -> set[str]:
    # By name: the HTTP client underneath has changed its package more than once.
    return {kind.__name__ for kind in type(error).__mro__}


def _explained(error: BaseException, name: str, revision: str | None) -> HubError:
    """The first cause in the chain that says something."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for cause in chain:
        explained = _answered(cause, name, revision) or _local(cause, name)
        if explained is not None:
            return explained
    if any("LocalEntryNotFoundError" in _kinds(cause) for cause in chain):
        return _unreachable(name)
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return HubError(f"{name} could not be fetched ({first}): try again")


def _answered(error: BaseException, name: str, revision: str | None) -> HubError | None:
    """What the hub itself said."""
    kinds = _kinds(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kinds:
        return HubAccessError(
            f"{name} is gated: accept its licence at {endpoint()}/{name}, then log in with "
            "'hf auth login' or set HF_TOKEN"
        )
    if "RevisionNotFoundError" in kinds:
        return HubNotFoundError(
            f"{name} has no revision {revision!r}: {endpoint()}/{name}/tree/main lists branches, "
            "tags and commits"
        )
    if "RepositoryNotFoundError" in kinds or "HFValidationError" in kinds:
        return HubNotFoundError(missing_model(name))
    if "DisabledRepoError" in kinds:
        return HubAccessError(f"{name} was disabled by the hub: choose another model")
    if "EntryNotFoundError" in kinds and status == 404:
        return HubNotFoundError(f"{name} lost a file while it was being fetched: try again")
    if status == 401 and not _has_token():
        # Without a token, the hub gives what does not exist the same answer as what is private.
        return HubNotFoundError(missing_model(name))
    if status == 401:
        return HubAccessError(
            f"the hub refused the token it was given for {name}: correct or unset HF_TOKEN, or log "
            "in again with 'hf auth login'"
        )
    if status == 403:
        return HubAccessError(
            f"the token has no right to read {name}: accept its licence at {endpoint()}/{name}, or "
            "use a token that may read it (HF_TOKEN, 'hf auth login')"
        )
    if status == 429:
        return HubError(f"the hub limits requests at the moment: fetch {name} in some minutes")
    if isinstance(status, int) and status >= 500:
        return HubError(
            f"the hub has a problem of its own (HTTP {status}): fetch {name} again later"
        )
    return None


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _local(error: BaseException, name: str) -> HubError | None:
    """What went wrong on this side or on the way."""
    kinds = _kinds(error)
    if "TimeoutException" in kinds:
        return HubOfflineError(
            f"{endpoint()} did not answer in time and {name} is not in the cache: try again, or "
            "check the connection"
        )
    if kinds & {"ConnectError", "ProxyError", "OfflineModeIsEnabled", "UnsupportedProtocol"}:
        return _unreachable(name)
    if "Consistency check failed" in str(error) or kinds & {"RemoteProtocolError", "ReadError"}:
        return HubError(f"the transfer of {name} was cut off: run it again, what came is kept")
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return HubDiskError(
            f"no room left in {cache_folder()} for {name}: make room, or point HF_HOME to a larger "
            "disk"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return HubDiskError(
            f"the cache {cache_folder()} cannot be written: point HF_HOME to a folder of yours"
        )
    return None


def _unreachable(name: str) -> HubOfflineError:
    return HubOfflineError(
        f"{endpoint()} cannot be reached and {name} is not whole in the cache: connect, or give a "
        "model folder or a bundled park model"
    )


def missing_model(name: str) -> str:
    """The message for a name that the hub does not know, with the nearest that it may know."""
    close = nearest(name, catalogue_names())
    hint = f"did you mean {' or '.join(close)}?" if close else "check the spelling"
    return (
        f"the hub has no model {name!r}, or it was deleted, renamed or is private: {hint} "
        "('sightline models' lists known ones; a private one needs HF_TOKEN)"
    )

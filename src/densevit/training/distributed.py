"""Several processes, one run: the only module that knows of them.

``torchrun`` starts the processes and names them in the environment. Every one holds a part of each batch. Sums of
counts, losses, gradients, batch statistics and figures make the parts one run; the first process writes its files.
"""

import gc
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import HashStore, PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from densevit.errors import ConfigError, DensevitError
from densevit.model import DenseModel

PLACE = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
"""Where torchrun says which process this is, and what holds without it."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: of this process, 0 for the first.
        world: their number.
        device: where this process computes.
        restarted: torchrun has started the processes anew after one of them died.
        mesh: of all processes in a row, over which weights are spread; None where each process has a copy.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    restarted: bool = False
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place, whatever device the values are on."""
        if self.world > 1:
            moved = values.to(self.device)
            dist.all_reduce(moved)
            values.copy_(moved)
        return values

    def on_first(self, work: Callable[[], T]) -> T:
        """The result of ``work``, done by the first process alone; all of them raise its ``DensevitError``."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome = [work(), None]
            except DensevitError as error:
                outcome = [None, error]
        dist.broadcast_object_list(outcome, src=0, device=self.device if self.device.type == "cuda" else None)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def gather(self, value: T) -> list[T]:
        """The plain data of all processes, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            self.sum(torch.zeros(1))


def is_first() -> bool:
    """Whether this process is the first of its run, or alone."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def processes(device: str, *, shard: bool, timeout_s: float) -> Iterator[Group]:
    """Join the processes that torchrun started; a run without it is alone.

    Args:
        device: "cpu", "cuda", ...; of several processes of a machine each takes the GPU of its own number.
        shard: weights will be spread, which takes a group even of one.
        timeout_s: how long a process waits for the others before it takes them for dead.

    Raises:
        ConfigError: if the machine has fewer GPUs than processes.
    """
    rank, world, local = (int(os.environ.get(name, at)) for name, at in PLACE)
    place = torch.device(device)
    if place.type == "cuda" and world > 1:
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; start at most as "
                "many processes as GPUs (torchrun --nproc-per-node), or pass --device cpu"
            )
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if world == 1 and not shard:
        yield Group(device=place, restarted=restarted)
        return
    timeout = timedelta(seconds=timeout_s)
    store = HashStore() if world == 1 else _meet(next(rendezvous("env://", rank, world))[0], rank, world, timeout)
    backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    # Machines count restarts by themselves, so one may know of what the others don't.
    restarts = Group(rank, world, place).sum(torch.tensor([float(restarted)]))
    mesh = init_device_mesh(place.type, (world,)) if shard else None
    group = Group(rank, world, place, bool(restarts > 0), mesh)
    if rank:
        logging.getLogger("densevit").setLevel(logging.WARNING)
    try:
        yield group
        group.wait()
    finally:  # also for a caller that goes on after an error
        if rank:
            logging.getLogger("densevit").setLevel(logging.NOTSET)
        dist.destroy_process_group()
        _let_go(mesh)


def _let_go(mesh: DeviceMesh | None) -> None:
    """Have a mesh drop its process group, so that the group's threads end now.

    torch keeps every mesh for good. A thread that still lets go of a tensor while Python ends aborts the process.
    """
    getattr(mesh, "_pg_registry", {}).clear()
    gc.collect()


def _meet(store: Store, rank: int, world: int, timeout: timedelta) -> Store:
    """A part of the store that only the processes of now know.

    After a restart torchrun's store still has the addresses of processes that are dead. Each process thus leaves a name
    that nobody else has; the first answers under that name with the part to use, until all others have said yes.

    Raises:
        ConfigError: if they do not find each other in time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()

    def wait(ready: Callable[[], bool]) -> None:
        while not ready():
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"process {rank} of {world} has not met the others in {timeout.total_seconds():g} s; start all of "
                    "them, or set timeout_s to more"
                )
            time.sleep(0.02)

    def answered(other: int) -> bool:
        if store.check([f"name/{other}"]):
            store.set(f"answer/{store.get(f'name/{other}').decode()}", own)
        return store.check([f"yes/{own}/{other}"])

    if rank == 0:
        for other in range(1, world):
            wait(partial(answered, other))
        return PrefixStore(own, store)
    store.set(f"name/{rank}", own)
    wait(lambda: store.check([f"answer/{own}"]))
    common = store.get(f"answer/{own}").decode()
    store.set(f"yes/{common}/{rank}", "1")
    return PrefixStore(common, store)


def spread(learner: nn.Module, model: DenseModel, group: Group, *, shard: bool, sync_bn: bool) -> nn.Module:
    """What to call for a forward pass, so that backward leaves the mean gradient of all processes.

    Args:
        learner: holds everything that is trained, ``model`` among it.
        model: its encoder's blocks are what ``shard`` gathers one at a time.
        group: the processes.
        shard: spread weights, gradients and optimiser (FSDP2) instead of keeping a copy each (DDP).
        sync_bn: batch norm's statistics are those of all processes.
    """
    if sync_bn and group.world > 1:
        synchronise_batch_norms(model, group.device)
    if shard:
        from torch.distributed.fsdp import fully_shard

        for block in model.encoder.blocks:
            fully_shard(block, mesh=group.mesh)
        fully_shard(learner, mesh=group.mesh)
        return learner
    if group.world > 1:
        return DistributedDataParallel(learner, gradient_as_bucket_view=True)
    return learner


def gathering(network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Within it backward passes gather gradients; with copies, only after the last micro-batch of a step."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """The full values of a tensor that may be spread; all processes must ask for it."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


@contextmanager
def unspread(model: DenseModel, average: dict[str, Tensor], group: Group) -> Iterator[DenseModel]:
    """A model of its own with the full weights, those of ``average`` where it has them, in evaluation mode."""
    copy = DenseModel(model.config).to(group.device)
    state = {name: whole(average.get(name, value)) for name, value in model.state_dict().items()}
    copy.load_state_dict(state)
    yield copy.eval()


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Put batch norms of all processes in the place of the model's; weights and names stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the maps of all processes, on any device: torch's own takes GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        own = torch.cat((values.sum((0, 2, 3)), values.new_full((1,), values.numel() / values.shape[1])))
        *_, count = sums = _SumOverProcesses.apply(own)  # (C + 1,)
        mean = sums[:-1] / count.detach()
        # About the mean and not by the mean of squares, which would cancel in float32.
        centred = values - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count.detach()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1).clamp(min=1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scaled = centred * (self.weight / (variance + self.eps).sqrt())[:, None, None] + self.bias[:, None, None]
        return scaled.to(x.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; each process's loss hangs on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total

"""One run in several processes; the only module that uses ``torch.distributed``.

``torchrun`` starts the processes and describes them in the environment. Each takes its part of every batch. Counts,
losses, gradients, batch statistics and metrics are summed over all of them; the first process writes the files.
"""

import gc
import logging
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
from densevit.training.launch import meeting, read_launch

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of a run, from the point of view of one of them.

    Attributes:
        rank: number of this process, 0 for the first.
        world: number of processes.
        device: where this process computes.
        restarted: torchrun has restarted the processes after one of them died.
        mesh: all processes, over which weights are sharded; None where each process has a copy.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    restarted: bool = False
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place, whatever device the values are on."""
        if self.world > 1:
            on_device = values.to(self.device)
            dist.all_reduce(on_device)
            values.copy_(on_device)
        return values

    def on_first(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the first process only; every process returns its result or raises its ``DensevitError``."""
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
        """The values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all processes get here."""
        if self.world > 1:
            self.sum(torch.zeros(1))


@contextmanager
def join_processes(device: str, *, shard: bool, timeout_s: float) -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun there is only this one.

    Args:
        device: "cpu", "cuda", ...; with several processes each takes the GPU of its local rank.
        shard: weights will be sharded, which needs a process group even for one process.
        timeout_s: how long a process waits for the others before it considers them dead.

    Raises:
        ConfigError: if the machine has fewer GPUs than processes, or the processes do not meet.
    """
    launch = read_launch()
    rank, local, world, restarted = launch.rank, launch.local_rank, launch.world, launch.restarted
    chosen = torch.device(device)
    if chosen.type == "cuda" and world > 1:
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; start at most as "
                "many processes as GPUs (torchrun --nproc-per-node), or pass --device cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if world == 1 and not shard:
        yield Group(device=chosen, restarted=restarted)
        return
    timeout = timedelta(seconds=timeout_s)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    with meeting(launch, timeout_s):
        store: Store = HashStore()
        if world > 1:
            store = _meet(next(rendezvous("env://", rank, world, timeout=timeout))[0], rank, world, timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    # Each machine counts its own restarts, so the sum tells all of them.
    restarts = Group(rank, world, chosen).sum(torch.tensor([float(restarted)]))
    mesh = init_device_mesh(chosen.type, (world,)) if shard else None
    group = Group(rank, world, chosen, bool(restarts > 0), mesh)
    if rank:
        logging.getLogger("densevit").setLevel(logging.WARNING)
    try:
        yield group
        group.wait()
    finally:  # also after an error, for a caller that continues
        if rank:
            logging.getLogger("densevit").setLevel(logging.NOTSET)
        dist.destroy_process_group()
        _release(mesh)


def _release(mesh: DeviceMesh | None) -> None:
    """Make a mesh drop its process group, so that the group's threads end now.

    torch keeps every mesh alive. A thread that frees a tensor while Python is shutting down aborts the process.
    """
    getattr(mesh, "_pg_registry", {}).clear()
    gc.collect()


def _meet(store: Store, rank: int, world: int, timeout: timedelta) -> Store:
    """A prefix of the store that only the processes of this start share.

    After a restart torchrun's store still holds the addresses of processes that are dead. So each process announces a
    unique name; the first process answers under that name with the prefix to use, until all others have confirmed it.
    """
    name = uuid.uuid4().hex
    deadline = time.monotonic() + timeout.total_seconds()

    def wait(ready: Callable[[], bool]) -> None:
        while not ready():
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"process {rank} of {world} did not find the others within {timeout.total_seconds():g} s; start "
                    "all of them, or raise timeout_s"
                )
            time.sleep(0.02)

    def confirmed(other: int) -> bool:
        if store.check([f"name/{other}"]):
            store.set(f"answer/{store.get(f'name/{other}').decode()}", name)
        return store.check([f"yes/{name}/{other}"])

    if rank == 0:
        for other in range(1, world):
            wait(partial(confirmed, other))
        return PrefixStore(name, store)
    store.set(f"name/{rank}", name)
    wait(lambda: store.check([f"answer/{name}"]))
    prefix = store.get(f"answer/{name}").decode()
    store.set(f"yes/{prefix}/{rank}", "1")
    return PrefixStore(prefix, store)


def wrap_distributed(learner: nn.Module, model: DenseModel, group: Group, *, shard: bool, sync_bn: bool) -> nn.Module:
    """The module to call for a forward pass, so that backward leaves the mean gradient of all processes.

    Args:
        learner: holds everything that is trained, including ``model``.
        model: ``shard`` gathers the blocks of its encoder one at a time.
        group: the processes.
        shard: shard weights, gradients and optimiser (FSDP2) instead of keeping a copy in each process (DDP).
        sync_bn: compute batch norm's statistics over all processes.
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


def sync_gradients(network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """A block in which backward passes exchange gradients; DDP does so only after the last micro-batch of a step."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


def full_tensor(tensor: Tensor) -> Tensor:
    """All values of a tensor that may be sharded; every process must call it."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


@contextmanager
def gather_full_weights(model: DenseModel, ema: dict[str, Tensor], group: Group) -> Iterator[DenseModel]:
    """A separate model in evaluation mode with the full weights, taken from ``ema`` where it has them."""
    copy = DenseModel(model.config).to(group.device)
    state = {name: full_tensor(ema.get(name, value)) for name, value in model.state_dict().items()}
    copy.load_state_dict(state)
    yield copy.eval()


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Make the model's batch norms compute statistics over all processes; weights and names stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the maps of all processes, on any device; torch's own only runs on GPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        pixels = values.new_full((1,), values.numel() / values.shape[1])
        *_, count = sums = _SumOverProcesses.apply(torch.cat((values.sum((0, 2, 3)), pixels)))  # (C + 1,)
        mean = sums[:-1] / count.detach()
        # Squares of centred values: the mean of squares minus the squared mean would cancel in float32.
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
    """The sum over all processes. The loss of each process depends on it, so its gradients are summed too."""

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

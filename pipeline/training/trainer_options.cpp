#include <algorithm>
#include <bit>

#include "base/cores.h"
#include "pipeline/training/peers.h"
#include "pipeline/training/trainer.h"
#include "tensor/device_memory.h"

namespace millrace {
namespace {

unsigned bits(int value) { return static_cast<unsigned>(value); }

/// How many replicas the devices have room for.
int capacity(const std::vector<Device>& devices) {
  const auto differs = [&](Device device) { return device.kind != devices[0].kind; };
  if (devices.empty() || std::any_of(devices.begin(), devices.end(), differs)) {
    throw InputError("trainer: got the devices '{}', expected the CPU, or one or more GPUs",
                     to_string(devices));
  }
  if (devices[0].is_cpu()) {
    return available_cores();
  }
  if (cuda_device_count() == 0) {
    throw InputError("trainer: device {}: {}", devices[0].to_string(), cuda_unavailable_reason());
  }
  return static_cast<int>(devices.size());
}

/// One device for each replica. Of the GPUs that it sees, a process takes as many as it has replicas: all, or
/// the next ones after those of the processes before it on this machine. As it leaves what it has dealt.
std::vector<Device> deal_out(std::vector<Device> devices, int replicas, const Place& place) {
  const std::ptrdiff_t seen = std::ssize(devices), first = place.local_rank * replicas;
  if (place.local_size > 1 && devices[0].is_cuda() && seen > replicas) {
    if (seen < place.local_size * replicas) {
      throw InputError(
          "trainer: got {} processes on this machine with {} replica{} each for {} GPUs, expected a GPU for "
          "each replica; start fewer, name each process's own with --device cuda:N, or say with "
          "LOCAL_WORLD_SIZE how many processes share this machine",
          place.local_size, replicas, replicas == 1 ? "" : "s", seen);
    }
    devices.erase(devices.begin(), devices.begin() + first);
  }
  if (devices.size() > 1 && replicas > std::ssize(devices)) {
    throw InputError(
        "trainer: got {} replicas for {} GPUs, expected at most one on each; name one GPU, as cuda:0, for "
        "all of them to share it",
        replicas, devices.size());
  }
  devices.resize(static_cast<std::size_t>(replicas), devices[0]);
  return devices;
}

/// The largest power of two up to `most` that divides `batch_size` (any, when that is 0).
int shards_for(int most, std::int64_t batch_size) {
  int shards = static_cast<int>(std::bit_floor(bits(most)));
  while (batch_size % shards != 0) {
    shards /= 2;
  }
  return shards;
}

/// @throws InputError for a type in which the machine does not compute, or a number out of range.
void check_options(const TrainerOptions& options) {
  if (options.dtype != DType::f32 && options.dtype != DType::bf16 && options.dtype != DType::f16) {
    throw InputError("trainer: got {}, expected f32 or bf16, or f16 on GPUs", options.dtype);
  }
  if (options.dtype == DType::f16 && options.devices[0].is_cpu()) {
    throw InputError("trainer: got f16, in which the CPU does not compute; use bf16 or f32, or a GPU");
  }
  if (options.dtype == DType::bf16 && options.devices[0].is_cpu() && !cpu::has_bf16()) {
    throw InputError("trainer: got bf16, which needs a processor with AVX-512 bf16; use f32 on this one");
  }
  if (options.replicas < 0 || options.shards < 0 || options.batch_size < 0) {
    throw InputError("trainer: got {} replicas, {} shards and a batch of {}, expected no negative number",
                     options.replicas, options.shards, options.batch_size);
  }
  if (options.replicas > 0 && !std::has_single_bit(bits(options.replicas))) {
    throw InputError(
        "trainer: got {} replicas, expected a power of two, so that they share the shards equally",
        options.replicas);
  }
}

}  // namespace

TrainerOptions resolve(TrainerOptions options) {
  const int most = capacity(options.devices);
  check_options(options);
  const int processes = options.processes ? options.processes->size() : 1;
  const bool shares_machine = options.processes && options.processes->place().local_size > 1;
  if (options.shards == 0) {
    const int replicas = options.replicas > 0 ? options.replicas : shares_machine ? 1 : most;
    options.shards =
        shards_for(replicas * static_cast<int>(std::bit_ceil(bits(processes))), options.batch_size);
  }
  if (!std::has_single_bit(bits(options.shards))) {
    throw InputError("trainer: got {} shards, expected a power of two", options.shards);
  }
  if (options.batch_size % options.shards != 0) {
    throw InputError("trainer: a batch of {} does not split into {} equal shards", options.batch_size,
                     options.shards);
  }
  const bool is_even = std::has_single_bit(bits(processes));
  if (processes > options.shards) {
    throw InputError(
        "trainer: got {} processes for {} shards, expected at most one for each shard; start fewer, or ask "
        "for more shards",
        processes, options.shards);
  }
  if (!is_even && options.replicas > 1) {
    throw InputError(
        "trainer: got {} processes of {} replicas, expected one replica in each where the processes are no "
        "power of two",
        processes, options.replicas);
  }
  if (options.replicas == 0) {
    const int fitting = std::min(static_cast<int>(std::bit_floor(bits(most))), options.shards / processes);
    options.replicas = shares_machine || !is_even ? 1 : fitting;
  }
  if (options.replicas > options.shards / processes) {
    throw InputError("trainer: got {} replicas for {} shards{}, expected at most one replica for each shard",
                     options.replicas * processes, options.shards,
                     options.batch_size > 0 ? fmt::format(" of a batch of {}", options.batch_size) : "");
  }
  const Place place = options.processes ? options.processes->place() : Place();
  options.devices = deal_out(std::move(options.devices), options.replicas, place);
  return options;
}

ShardRange local_shards(const TrainerOptions& options) {
  return Peers(options.processes, options.shards).shards();
}

}  // namespace millrace

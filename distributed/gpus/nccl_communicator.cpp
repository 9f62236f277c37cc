#include "distributed/gpus/nccl_communicator.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "distributed/gpus/nccl_link.h"
#include "distributed/rendezvous/board.h"
#include "tensor/cuda/tree_sum.h"

namespace millrace {
namespace {

ncclDataType_t type_of(const Tensor& tensor) {
  return tensor.dtype() == DType::f64 ? ncclFloat64 : ncclFloat32;
}

/// Bytes of one tensor that one rank deals with.
struct Piece {
  std::byte* data;
  std::size_t bytes;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<NcclLink> link, SumOrder sum_order)
      : link_(std::move(link)), sum_order_(sum_order) {
    if (sum_order_ == SumOrder::tree && size() > 1) {
      load_kernels();
    }
  }

  int rank() const override { return link_->rank(); }
  int size() const override { return link_->size(); }

  void all_reduce(Tensor& tensor, const Stream& asked) override {
    check_addends(tensor, kCuda, Operation::all_reduce);
    const Stream stream = begin(Operation::all_reduce, tensor, asked);
    if (size() == 1) {
      return;
    }
    if (sum_order_ == SumOrder::engine) {
      link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
        return nccl.AllReduce(tensor.raw(), tensor.raw(), static_cast<std::size_t>(tensor.numel()),
                              type_of(tensor), ncclSum, communicator, cuda::native(stream));
      });
    } else {
      sum_on_tree(tensor, stream);
    }
    finish(tensor, stream);
  }

  void reduce_scatter(Tensor& input, Tensor& output, const Stream& asked) override {
    check_addends(input, kCuda, Operation::reduce_scatter);
    check_parts(input, output, size(), kCuda, Operation::reduce_scatter);
    const Stream stream = begin(Operation::reduce_scatter, input, asked);
    if (sum_order_ == SumOrder::engine) {
      link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
        return nccl.ReduceScatter(input.raw(), output.raw(), static_cast<std::size_t>(output.numel()),
                                  type_of(input), ncclSum, communicator, cuda::native(stream));
      });
    } else {
      const std::size_t bytes = output.bytes();
      const auto part = [&](int r) {
        return Piece{input.raw() + static_cast<std::size_t>(r) * bytes, bytes};
      };
      sum_parts(part, output.raw(), output.dtype(), stream);
    }
    finish(output, stream);
  }

  void all_gather(const Tensor& input, Tensor& output, const Stream& asked) override {
    check_dense(input, kCuda, Operation::all_gather);
    check_parts(output, input, size(), kCuda, Operation::all_gather);
    const Stream stream = begin(Operation::all_gather, input, asked);
    link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
      return nccl.AllGather(input.raw(), output.raw(), input.bytes(), ncclUint8, communicator,
                            cuda::native(stream));
    });
    finish(output, stream);
  }

  void broadcast(Tensor& tensor, int root, const Stream& asked) override {
    check_dense(tensor, kCuda, Operation::broadcast);
    check_root(root, size());
    const Stream stream = begin(Operation::broadcast, tensor, asked);
    if (size() == 1) {
      return;
    }
    link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
      return nccl.Broadcast(tensor.raw(), tensor.raw(), tensor.bytes(), ncclUint8, root, communicator,
                            cuda::native(stream));
    });
    finish(tensor, stream);
  }

  void barrier() override {
    const Stream stream = current_stream(link_->device());
    link_->begin(Operation::barrier);
    Tensor token = zeros({1}, {.device = link_->device()});
    link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
      return nccl.AllReduce(token.raw(), token.raw(), 1, ncclFloat32, ncclSum, communicator,
                            cuda::native(stream));
    });
    link_->watch(stream);
    Event passed;
    passed.record(stream);
    link_->wait(passed);
  }

  Tensor allocate(std::int64_t count, TensorOptions options) override {
    return link_->allocate(count, options.dtype);
  }

  void wait(const Event& event) override { link_->wait(event); }

  void abort(const std::string& reason) override {
    link_->abort(fmt::format("rank {} aborted: {}", rank(), reason));
  }

 private:
  static constexpr Device::Kind kCuda = Device::Kind::cuda;

  /// At its first launch a kernel may wait for the GPU, and so for another rank: all of ours run once before.
  void load_kernels() const {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor zero = zeros({5}, {.dtype = dtype, .device = link_->device()});  // packs, and a rest
      const std::vector<const std::byte*> addends(static_cast<std::size_t>(size()), zero.raw());
      cuda::tree_sum(addends, std::vector{zero.raw()}, zero.numel(), dtype, current_stream(zero.device()));
    }
  }

  /// Returns the stream to enqueue on.
  Stream begin(Operation operation, const Tensor& tensor, const Stream& asked) {
    if (tensor.device() != link_->device()) {
      throw InputError("{}: got a tensor on {}, expected one on {}, which is this rank's", name_of(operation),
                       tensor.device().to_string(), link_->device().to_string());
    }
    link_->begin(operation);
    return asked.device().is_cuda() ? asked : current_stream(link_->device());
  }

  void finish(Tensor& changed, const Stream& stream) {
    link_->watch(stream);
    changed.storage()->bump_version();
  }

  /// Sends `to(r)` to every other rank r and receives `from(r)` of it.
  template <typename To, typename From>
  void exchange(To&& to, From&& from, const Stream& stream) {
    link_->call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
      for (int step = 1; step < size(); ++step) {
        const int next = (rank() + step) % size(), last = (rank() + size() - step) % size();
        if (const Piece piece = to(next); piece.bytes > 0) {
          link_->answer(
              nccl.Send(piece.data, piece.bytes, ncclUint8, next, communicator, cuda::native(stream)));
        }
        if (const Piece piece = from(last); piece.bytes > 0) {
          link_->answer(
              nccl.Recv(piece.data, piece.bytes, ncclUint8, last, communicator, cuda::native(stream)));
        }
      }
      return ncclSuccess;
    });
  }

  /// Sums this rank's part of all ranks' tensors into `out`; `part(r)` is rank r's part of this one's.
  template <typename Part>
  void sum_parts(Part&& part, std::byte* out, DType dtype, const Stream& stream) {
    const StreamGuard guard(stream);
    const Piece own = part(rank());
    // Each rank's place begins on 16 bytes, as the kernel likes it.
    const std::size_t pitch = (own.bytes + 15) / 16 * 16;
    const Tensor received =
        empty({static_cast<std::int64_t>(pitch) * size()}, {.dtype = DType::u8, .device = link_->device()});
    const auto place = [&](int r) {
      return r == rank() ? own.data : received.raw() + static_cast<std::size_t>(r) * pitch;
    };
    exchange(
        part,
        [&](int r) {
          return Piece{place(r), own.bytes};
        },
        stream);
    std::vector<const std::byte*> addends;
    for (int r = 0; r < size(); ++r) {
      addends.push_back(place(r));
    }
    cuda::tree_sum(addends, std::vector{out}, static_cast<std::int64_t>(own.bytes / size_of(dtype)), dtype,
                   stream);
  }

  /// Every rank sums its part of the tensor and sends the sum to all.
  void sum_on_tree(Tensor& tensor, const Stream& stream) {
    const auto ranks = static_cast<std::size_t>(size());
    const std::size_t all = tensor.bytes();
    const std::size_t each = (all + ranks * 16 - 1) / (ranks * 16) * 16;
    const auto part = [&](int r) {
      const std::size_t begin = std::min(all, static_cast<std::size_t>(r) * each);
      return Piece{tensor.raw() + begin, std::min(all, begin + each) - begin};
    };
    const Piece own = part(rank());
    sum_parts(part, own.data, tensor.dtype(), stream);
    exchange([&](int) { return own; }, part, stream);
  }

  std::unique_ptr<NcclLink> link_;
  SumOrder sum_order_;
};

void check_members(int first, std::span<const Device> devices, int size) {
  if (devices.empty()) {
    throw InputError("nccl: got no devices, expected one or more GPUs");
  }
  for (const Device device : devices) {
    if (!device.is_cuda()) {
      throw InputError("nccl: got {}, expected a GPU", device.to_string());
    }
    if (std::ranges::count(devices, device) > 1) {
      throw InputError("nccl: got {} twice, expected one rank a GPU", device.to_string());
    }
  }
  if (size > static_cast<int>(cuda::kMostAddends)) {
    throw InputError("nccl: got {} ranks, expected 1 to {}", size, cuda::kMostAddends);
  }
  if (first < 0 || first + std::ssize(devices) > size) {
    throw InputError("nccl: got ranks {} to {}, expected 0 to {}", first, first + std::ssize(devices) - 1,
                     size - 1);
  }
}

ncclUniqueId native_id(const NcclId& id) {
  ncclUniqueId native{};
  static_assert(sizeof(native.internal) == sizeof(NcclId));
  std::memcpy(native.internal, id.data(), id.size());
  return native;
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_nccl_group(std::span<const Device> devices,
                                                           const NcclOptions& options) {
  const int size = static_cast<int>(devices.size());
  return join_nccl_group({.id = make_nccl_id(), .devices = devices, .board = make_shared_board(size)},
                         options);
}

NcclId make_nccl_id() {
  const NcclLibrary& nccl = nccl_library();
  ncclUniqueId native{};
  if (const ncclResult_t result = nccl.GetUniqueId(&native); result != ncclSuccess) {
    throw MachineError("nccl: no id for a group: {}", nccl.GetErrorString(result));
  }
  NcclId id;
  std::memcpy(id.data(), native.internal, id.size());
  return id;
}

std::vector<std::unique_ptr<Communicator>> join_nccl_group(const NcclMembers& members,
                                                           const NcclOptions& options) {
  check_members(members.first, members.devices, members.board->size());
  const NcclLibrary& nccl = nccl_library();
  std::vector<std::unique_ptr<NcclLink>> links;
  for (const Device device : members.devices) {
    const int rank = members.first + static_cast<int>(links.size());
    links.push_back(std::make_unique<NcclLink>(nccl, rank, device, members.board, options.timeout));
  }
  links.front()->answer(nccl.GroupStart());
  for (const auto& link : links) {
    link->connect(native_id(members.id));
  }
  links.front()->answer(nccl.GroupEnd());
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (auto& link : links) {
    link->joined();
    ranks.push_back(std::make_unique<NcclCommunicator>(std::move(link), options.sum_order));
  }
  return ranks;
}

std::vector<std::unique_ptr<Communicator>> join_nccl_group(const std::shared_ptr<Rendezvous>& rendezvous,
                                                           std::span<const Device> devices,
                                                           const NcclOptions& options) {
  const int local = static_cast<int>(devices.size()), first = rendezvous->place().rank * local;
  NcclMembers members{
      .id = {}, .first = first, .devices = devices, .board = make_rendezvous_board(rendezvous, first, local)};
  // What fails here fails before the others begin to wait inside NCCL.
  check_members(first, devices, members.board->size());
  nccl_library();
  std::string id;
  if (rendezvous->place().rank == 0) {
    const NcclId made = make_nccl_id();
    id.assign(made.begin(), made.end());
  }
  id = rendezvous->all_gather(fmt::format("NCCL, {} ranks in each process", local), id).front();
  std::copy_n(id.begin(), std::min(id.size(), members.id.size()), members.id.begin());
  return join_nccl_group(members, options);
}

}  // namespace millrace

#include "distributed/processes/message_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "distributed/tree_sum.h"

namespace millrace {
namespace {

constexpr std::size_t kSmallBytes = 16384;

template <typename T>
std::size_t bytes_of(std::int64_t count) {
  return static_cast<std::size_t>(count) * sizeof(T);
}

}  // namespace

template <typename Body>
void MessageCommunicator::together(Operation operation, Body&& body) {
  rendezvous_->count_operation();
  if (const std::string failure = rendezvous_->failure(); !failure.empty()) {
    throw CommunicatorError("{}: {}", name_of(operation), failure);
  }
  std::string reason;
  try {
    body();
    return;
  } catch (const std::exception& error) {
    reason = error.what();
  }
  // The engine sees that a connection broke, perhaps with one that only followed; the rendezvous knows who
  // was first.
  const std::string failure = rendezvous_->failure(std::chrono::seconds(2));
  if (failure.empty()) {
    rendezvous_->fail(reason);
  }
  throw CommunicatorError("{}: {}", name_of(operation), failure.empty() ? reason : failure);
}

std::byte* MessageCommunicator::scratch(std::size_t bytes) {
  if (scratch_.size() < bytes) {
    scratch_.resize(bytes);
  }
  return scratch_.data();
}

template <typename T>
void MessageCommunicator::sum_parts(std::vector<const T*> parts, std::int64_t count, T* to) {
  std::vector<T> sums(static_cast<std::size_t>(kBlock) * std::bit_width(parts.size()));
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const std::int64_t block = std::min(kBlock, count - at);
    const T* sum = sum_block(parts.data(), parts.size(), block, sums.data());
    std::memcpy(to + at, sum, bytes_of<T>(block));
    for (const T*& part : parts) {
      part += block;
    }
  }
}

template <typename T>
void MessageCommunicator::sum_small(T* data, std::int64_t count) {
  const std::size_t bytes = bytes_of<T>(count);
  T* others = reinterpret_cast<T*>(scratch(bytes * static_cast<std::size_t>(size())));
  std::vector<Message> sends, receives;
  std::vector<const T*> parts;
  for (int r = 0; r < size(); ++r) {
    T* part = r == rank() ? data : others + r * count;
    parts.push_back(part);
    if (r != rank()) {
      sends.push_back({r, data, bytes});
      receives.push_back({r, part, bytes});
    }
  }
  transfer(sends, receives);
  sum_parts(parts, count, data);
}

template <typename T>
void MessageCommunicator::sum_on_tree(T* data, std::int64_t count) {
  const auto [begin, end] = part_of(count, rank(), size());
  T* others = reinterpret_cast<T*>(scratch(bytes_of<T>(end - begin) * static_cast<std::size_t>(size())));
  std::vector<Message> sends, receives;
  std::vector<const T*> parts;
  for (int r = 0; r < size(); ++r) {
    T* part = r == rank() ? data + begin : others + r * (end - begin);
    parts.push_back(part);
    if (r != rank()) {
      const auto [first, last] = part_of(count, r, size());
      sends.push_back({r, data + first, bytes_of<T>(last - first)});
      receives.push_back({r, part, bytes_of<T>(end - begin)});
    }
  }
  transfer(sends, receives);
  sum_parts(parts, end - begin, data + begin);
  for (std::size_t i = 0; i < sends.size(); ++i) {  // now the sums, the other way
    std::swap(sends[i].bytes, receives[i].bytes);
    receives[i].data = std::exchange(sends[i].data, data + begin);
  }
  transfer(sends, receives);
}

void MessageCommunicator::all_reduce(Tensor& tensor, const Stream& /*stream*/) {
  check_addends(tensor, Device::Kind::cpu, Operation::all_reduce);
  if (size() == 1 || tensor.numel() == 0) {
    return;
  }
  together(Operation::all_reduce, [&] {
    const bool is_small = tensor.bytes() <= kSmallBytes;
    const auto sum = [&](auto* data) {
      is_small ? sum_small(data, tensor.numel()) : sum_on_tree(data, tensor.numel());
    };
    if (sum_order_ == SumOrder::engine) {
      sum_by_engine(tensor);
    } else if (tensor.dtype() == DType::f32) {
      sum(tensor.data<float>());
    } else {
      sum(tensor.data<double>());
    }
  });
  tensor.storage()->bump_version();
}

void MessageCommunicator::reduce_scatter(Tensor& input, Tensor& output, const Stream& stream) {
  check_addends(input, Device::Kind::cpu, Operation::reduce_scatter);
  check_parts(input, output, size(), Device::Kind::cpu, Operation::reduce_scatter);
  all_reduce(input, stream);
  const std::size_t bytes = output.bytes();
  if (bytes > 0) {
    std::memcpy(output.raw(), input.raw() + static_cast<std::size_t>(rank()) * bytes, bytes);
  }
  output.storage()->bump_version();
}

void MessageCommunicator::all_gather(const Tensor& input, Tensor& output, const Stream& /*stream*/) {
  check_dense(input, Device::Kind::cpu, Operation::all_gather);
  check_parts(output, input, size(), Device::Kind::cpu, Operation::all_gather);
  const std::size_t bytes = input.bytes();
  if (bytes == 0) {
    return;
  }
  std::vector<Message> sends, receives;
  for (int r = 0; r < size(); ++r) {
    std::byte* part = output.raw() + static_cast<std::size_t>(r) * bytes;
    if (r == rank()) {
      std::memmove(part, input.raw(), bytes);
    } else {
      sends.push_back({r, const_cast<std::byte*>(input.raw()), bytes});
      receives.push_back({r, part, bytes});
    }
  }
  if (size() > 1) {
    together(Operation::all_gather, [&] { transfer(sends, receives); });
  }
  output.storage()->bump_version();
}

void MessageCommunicator::broadcast(Tensor& tensor, int root, const Stream& /*stream*/) {
  check_dense(tensor, Device::Kind::cpu, Operation::broadcast);
  check_root(root, size());
  const std::size_t bytes = tensor.bytes();
  if (size() == 1 || bytes == 0) {
    return;
  }
  std::vector<Message> sends, receives;
  for (int r = 0; r < size() && rank() == root; ++r) {
    if (r != root) {
      sends.push_back({r, tensor.raw(), bytes});
    }
  }
  if (rank() != root) {
    receives.push_back({root, tensor.raw(), bytes});
  }
  together(Operation::broadcast, [&] { transfer(sends, receives); });
  if (rank() != root) {
    tensor.storage()->bump_version();
  }
}

void MessageCommunicator::barrier() {
  if (size() == 1) {
    return;
  }
  std::vector<Message> sends, receives;
  std::byte sent{};
  std::vector<std::byte> received(static_cast<std::size_t>(size()));
  for (int r = 0; r < size(); ++r) {
    if (r != rank()) {
      sends.push_back({r, &sent, 1});
      receives.push_back({r, &received[static_cast<std::size_t>(r)], 1});
    }
  }
  together(Operation::barrier, [&] { transfer(sends, receives); });
}

}  // namespace millrace

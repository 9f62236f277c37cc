#include "tensor/cuda/runtime/faults.h"

#include <atomic>
#include <mutex>
#include <vector>

#include "tensor/device_memory.h"

namespace millrace::cuda {

namespace {

std::mutex mutex;
std::vector<Fault*> faults;  // by device; null until a kernel needs one

[[noreturn]] void throw_found(const Fault& fault) {
  switch (fault.operation) {
    case Indexing::cross_entropy:
      throw InputError("cross_entropy: row {} has label {}, expected 0 to {}", fault.row, fault.value,
                       fault.size - 1);
    case Indexing::index_select:
      throw InputError("index_select: index {} is outside of a dimension of size {}", fault.value,
                       fault.size);
    case Indexing::gather:
      throw InputError("gather: index {} is outside of a dimension of size {}", fault.value, fault.size);
    case Indexing::scatter_add:
      break;
  }
  throw InputError("scatter_add_: index {} is outside of a dimension of size {}", fault.value, fault.size);
}

}  // namespace

Fault* fault_of(int device) {
  const std::lock_guard lock(mutex);
  const auto place = static_cast<std::size_t>(device);
  if (faults.size() <= place) {
    faults.resize(place + 1);
  }
  if (faults[place] == nullptr) {
    faults[place] = new (allocate_pinned(sizeof(Fault))) Fault{};
  }
  return faults[place];
}

void throw_fault(int device) {
  const std::lock_guard lock(mutex);
  const auto place = static_cast<std::size_t>(device);
  if (faults.size() <= place || faults[place] == nullptr) {
    return;
  }
  const std::atomic_ref state(faults[place]->state);
  if (state.load(std::memory_order_acquire) == 2) {
    const Fault found = *faults[place];
    state.store(0, std::memory_order_release);
    throw_found(found);
  }
}

}  // namespace millrace::cuda

#include "fake_cudnn.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <mutex>

#include "cudnn_engines.h"
#include "memory.h"

namespace millrace::fake_cudnn {
namespace {

struct State {
  std::mutex mutex;
  std::function<cudnnStatus_t(int)> answer;
  std::string device;  // that calls are passed on for; empty when they are not
};
State& state() {
  static State state;
  return state;
}

struct Handle {
  int device = 0;
  cudaStream_t stream = nullptr;
};

std::string& last_error() {
  thread_local std::string text;
  return text;
}

std::string described_device() {
  const std::lock_guard lock(state().mutex);
  return state().device;
}

template <typename F>
cudnnStatus_t answer(F&& call) {
  try {
    call();
    return CUDNN_STATUS_SUCCESS;
  } catch (const Refusal& refusal) {
    last_error() = refusal.reason;
    return refusal.status;
  } catch (const std::exception& error) {  // a descriptor of another kind than belongs there
    last_error() = error.what();
    return CUDNN_STATUS_BAD_PARAM;
  }
}

Shared& mine(cudnnBackendDescriptor_t descriptor) {
  if (descriptor == nullptr) {
    throw Refusal{CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no descriptor"};
  }
  return *static_cast<Shared*>(descriptor);
}

/// What the real library answers.
void check_real(cudnnStatus_t status) {
  if (status != CUDNN_STATUS_SUCCESS) {
    std::array<char, 1024> text{};
    real_library()->last_error(text.data(), text.size());
    throw Refusal{status, std::string("cuDNN: ") + text.data()};
  }
}

Shared make(cudnnBackendDescriptorType_t type) {
  auto made = std::make_shared<Descriptor>(type);
  if (!described_device().empty()) {
    cudnnBackendDescriptor_t real = nullptr;
    check_real(real_library()->create(type, &real));
    made->real = {real, [](void* one) { real_library()->destroy(one); }};
  }
  return made;
}

/// The real library knows no device of ours: it gets the description instead.
void pass_set(const Descriptor& to, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
              std::int64_t count, const void* values) {
  if (type == CUDNN_TYPE_HANDLE) {
    const std::string device = described_device();
    if (name != CUDNN_ATTR_DEVICEPROP_HANDLE) {
      throw Refusal{CUDNN_STATUS_NOT_SUPPORTED, "only a device's properties are passed on without a handle"};
    }
    return check_real(real_library()->set(to.real.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                          CUDNN_TYPE_CHAR, static_cast<std::int64_t>(device.size()),
                                          device.data()));
  }
  std::vector<cudnnBackendDescriptor_t> inner;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (const Shared& one : to.values.at(name).descriptors) {
      inner.push_back(one->real.get());
    }
    values = inner.data();
  }
  check_real(real_library()->set(to.real.get(), name, type, count, values));
}

/// Descriptors that the real library fills are about the same graph.
void pass_get(const Descriptor& from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
              std::int64_t asked, std::int64_t* count, void* values) {
  if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR || values == nullptr) {
    return check_real(real_library()->get(from.real.get(), name, type, asked, count, values));
  }
  auto* const outer = static_cast<cudnnBackendDescriptor_t*>(values);
  std::vector<cudnnBackendDescriptor_t> inner;
  for (std::int64_t i = 0; i < asked; ++i) {
    inner.push_back(mine(outer[i])->real.get());
  }
  check_real(real_library()->get(from.real.get(), name, type, asked, count, inner.data()));
  for (std::int64_t i = 0; i < std::min(asked, *count); ++i) {
    mine(outer[i])->graph = from.graph;
    mine(outer[i])->finalized = true;
  }
}

void get(const Descriptor& from, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
         std::int64_t asked, std::int64_t* count, void* values) {
  if (!from.finalized) {
    throw Refusal{CUDNN_STATUS_NOT_INITIALIZED, "asked of a descriptor that is not finalized"};
  }
  if (from.real != nullptr) {
    return pass_get(from, name, type, asked, count, values);
  }
  const auto found = from.values.find(name);
  if (found == from.values.end()) {
    throw Refusal{CUDNN_STATUS_BAD_PARAM, fmt::format("asked for attribute {}", int{name})};
  }
  const Value& value = found->second;
  if (value.type != type) {
    throw Refusal{CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "asked for an attribute as another type"};
  }
  *count = asked == 0 || values == nullptr ? value.count : std::min(asked, value.count);
  if (asked == 0 || values == nullptr) {
    return;
  }
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (std::int64_t i = 0; i < *count; ++i) {
      Shared& to = mine(static_cast<cudnnBackendDescriptor_t*>(values)[i]);
      if (to->type != value.descriptors[static_cast<std::size_t>(i)]->type || to->finalized) {
        throw Refusal{CUDNN_STATUS_BAD_PARAM, "asked for a descriptor into one that cannot take it"};
      }
      to = value.descriptors[static_cast<std::size_t>(i)];
    }
    return;
  }
  std::memcpy(values, value.bytes.data(), bytes_of(type) * static_cast<std::size_t>(*count));
}

[[noreturn]] void fail(cudnnStatus_t status, std::string reason) { throw Refusal{status, std::move(reason)}; }

/// The pointers of x, weight and y, which lie on the handle's device, aligned as was promised.
std::array<void*, 3> pointers_of(const Descriptor& graph, const fakes::Convolution& c, const Descriptor& pack,
                                 int device) {
  const auto ids = pack.all<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto given = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  const std::vector<Operand> operands = operands_of(graph);
  const std::array<std::size_t, 3> bytes = {c.x.bytes(), c.weight.bytes(), c.y.bytes()};
  std::array<void*, 3> pointers{};
  for (std::size_t i = 0; i < pointers.size(); ++i) {
    const auto place = std::ranges::find(ids, operands[i].id);
    if (place == ids.end() || std::ranges::count(ids, operands[i].id) != 1) {
      fail(CUDNN_STATUS_BAD_PARAM, fmt::format("the variant pack has not one tensor {}", operands[i].id));
    }
    pointers[i] = given[static_cast<std::size_t>(place - ids.begin())];
    if (pointers[i] == nullptr) {
      fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, fmt::format("tensor {} is null", operands[i].id));
    }
    if (!fakes::is_aligned(pointers[i], static_cast<std::size_t>(operands[i].alignment))) {
      fail(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
           fmt::format("tensor {} is not aligned {}", operands[i].id, operands[i].alignment));
    }
    if (!fakes::is_held({"", pointers[i], bytes[i]}, device)) {  // the real one would find out on the device
      fail(CUDNN_STATUS_EXECUTION_FAILED,
           fmt::format("tensor {} of {} bytes lies in no one allocation of device {}", operands[i].id,
                       bytes[i], device));
    }
  }
  const auto result = static_cast<std::size_t>(c.result == fakes::Convolution::Result::y   ? 2
                                               : c.result == fakes::Convolution::Result::x ? 0
                                                                                           : 1);
  for (std::size_t i = 0; i < pointers.size(); ++i) {
    if (i != result && fakes::overlap({"", pointers[i], bytes[i]}, {"", pointers[result], bytes[result]})) {
      fail(CUDNN_STATUS_BAD_PARAM, "the result lies over what is read");
    }
  }
  return pointers;
}

void* workspace_of(const Descriptor& pack, std::int64_t bytes, int device) {
  void* const workspace = pack.has(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                              ? pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE)
                              : nullptr;
  if (bytes > 0 && workspace == nullptr) {
    fail(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, fmt::format("the plan wants {} bytes of workspace", bytes));
  }
  if (bytes > 0 && !fakes::is_held({"", workspace, static_cast<std::size_t>(bytes)}, device)) {
    fail(CUDNN_STATUS_EXECUTION_FAILED, fmt::format("no {} bytes of workspace on device {}", bytes, device));
  }
  return workspace;
}

std::int64_t workspace_bytes(cudnnBackendDescriptor_t plan) {
  std::int64_t bytes = 0, count = 0;
  get(*mine(plan), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes);
  return bytes;
}

void execute(const Handle* handle, cudnnBackendDescriptor_t given_plan, cudnnBackendDescriptor_t given_pack) {
  const Descriptor &plan = *mine(given_plan), &pack = *mine(given_pack);
  if (handle == nullptr || plan.type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ||
      pack.type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) {
    fail(CUDNN_STATUS_BAD_PARAM, "expected a handle, a plan and a variant pack");
  }
  if (!plan.finalized || !pack.finalized) {
    fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a plan or a variant pack is not finalized");
  }
  if (handle->stream == nullptr) {
    fail(CUDNN_STATUS_EXECUTION_FAILED, "the handle has the default stream, on which nothing is to run");
  }
  int current = 0;
  cudaGetDevice(&current);
  if (current != handle->device) {
    fail(CUDNN_STATUS_EXECUTION_FAILED, "the handle is of another device than the current one");
  }
  fakes::Convolution c = convolution_of(*plan.graph);
  c.kept = kept_by(plan);
  const auto [x, weight, y] = pointers_of(*plan.graph, c, pack, handle->device);
  const std::int64_t bytes = workspace_bytes(given_plan);
  void* const workspace = workspace_of(pack, bytes, handle->device);
  std::function<cudnnStatus_t(int)> asked;
  {
    const std::lock_guard lock(state().mutex);
    asked = state().answer;
  }
  const cudnnStatus_t status =
      asked ? asked(plan.real == nullptr ? static_cast<int>(engine_of(plan)) : 0) : CUDNN_STATUS_SUCCESS;
  if (status != CUDNN_STATUS_SUCCESS || refuses_to_run(plan)) {
    fail(status == CUDNN_STATUS_SUCCESS ? CUDNN_STATUS_EXECUTION_FAILED : status, "a test has it refused");
  }
  fakes::enqueue(handle->stream, workspace, static_cast<std::size_t>(bytes),
                 [c, x = x, weight = weight, y = y] { c.run(x, weight, y); });
}

}  // namespace

void on_run(std::function<cudnnStatus_t(int)> next) {
  const std::lock_guard lock(state().mutex);
  state().answer = std::move(next);
}

bool pass_on(std::string_view device) {
  if (real_library() == nullptr) {
    return false;
  }
  const std::lock_guard lock(state().mutex);
  state().device = device;
  return true;
}

}  // namespace millrace::fake_cudnn

using namespace millrace::fake_cudnn;

extern "C" {

size_t cudnnGetVersion() { return CUDNN_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  thread_local std::string text;
  text = fmt::format("status {}", static_cast<int>(status));
  return text.c_str();
}
void cudnnGetLastErrorString(char* text, size_t most) {
  if (most > 0) {
    text[last_error().copy(text, most - 1)] = '\0';
    last_error().clear();
  }
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return answer([&] {
    auto made = std::make_unique<Handle>();
    if (cudaGetDevice(&made->device) != cudaSuccess) {
      fail(CUDNN_STATUS_NOT_INITIALIZED, "no device");
    }
    *handle = reinterpret_cast<cudnnHandle_t>(made.release());
  });
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return answer([&] {
    auto* const mine = reinterpret_cast<Handle*>(handle);
    if (mine == nullptr || (stream != nullptr && millrace::fakes::device_of(stream) != mine->device)) {
      fail(CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH, "a stream of another device than the handle's");
    }
    mine->stream = stream;
  });
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  *stream = reinterpret_cast<Handle*>(handle)->stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* made) {
  return answer([&] {
    if (std::ranges::count(attribute_rows(), type, &AttributeRow::descriptor) == 0) {
      fail(CUDNN_STATUS_NOT_SUPPORTED, fmt::format("the fake has no descriptors of kind {}", int{type}));
    }
    *made = new Shared(make(type));
  });
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t made) {
  delete static_cast<Shared*>(made);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  return answer([&] {
    Descriptor& to = *mine(descriptor);
    to.set(name, type, count, values);
    if (to.real != nullptr) {
      pass_set(to, name, type, count, values);
    }
  });
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t asked, int64_t* count,
                                       void* values) {
  return answer([&] {
    int64_t unused = 0;
    get(*mine(descriptor), name, type, asked, count == nullptr ? &unused : count, values);
  });
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return answer([&] {
    Descriptor& made = *mine(descriptor);
    made.finalize();
    try {
      finalize_engines(made);
      if (made.real != nullptr) {
        check_real(real_library()->finalize(made.real.get()));
      }
    } catch (...) {
      made.finalized = false;
      throw;
    }
  });
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  return answer([&] { execute(reinterpret_cast<Handle*>(handle), plan, pack); });
}

}  // extern "C"

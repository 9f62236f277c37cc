#include "tensor/cpu/onednn.h"

#include <cstdlib>
#include <utility>

#include "base/error.h"
#include "tensor/device_memory.h"

extern "C" void omp_set_num_threads(int);  // of the OpenMP library that oneDNN runs on

namespace millrace::cpu::onednn {
namespace {

struct Handles {
  Handles() { omp_set_num_threads(1); }
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
};

const Handles& handles() {
  thread_local const Handles handles;
  return handles;
}

/// Primitives of a thread run one after another, so they share one scratch buffer that grows.
std::byte* scratch(std::size_t bytes) {
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  thread_local std::unique_ptr<void, Free> data;
  thread_local std::size_t size = 0;
  if (bytes > size) {
    data.reset();
    size = (bytes + 4095) / 4096 * 4096;
    data.reset(std::aligned_alloc(4096, size));
    if (!data) {
      size = 0;
      throw MachineError("oneDNN: no memory for {} bytes of scratch; use a smaller batch", bytes);
    }
  }
  return static_cast<std::byte*>(data.get());
}

void check(dnnl_status_t status, const char* what) { dnnl::error::wrap_c_api(status, what); }

}  // namespace

const dnnl::engine& engine() { return handles().engine; }
const dnnl::stream& stream() { return handles().stream; }

dnnl::memory::data_type data_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return dnnl::memory::data_type::f32;
    case DType::bf16:
      return dnnl::memory::data_type::bf16;
    default:
      break;
  }
  throw InputError("oneDNN: got type {}, expected f32 or bf16", dtype);
}

const dnnl::primitive_attr& attributes() {
  thread_local const dnnl::primitive_attr attributes = [] {
    dnnl::primitive_attr made;
    made.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    return made;
  }();
  return attributes;
}

Call::Call(dnnl::primitive primitive, std::initializer_list<Argument> arguments,
           const dnnl::memory::desc& scratchpad)
    : primitive_(std::move(primitive)), arguments_(arguments), scratchpad_bytes_(scratchpad.get_size()) {
  if (scratchpad_bytes_ > 0) {
    arguments_.push_back({DNNL_ARG_SCRATCHPAD, unbound(scratchpad)});
  }
  for (const Argument& argument : arguments_) {
    executed_.push_back({argument.name, argument.memory.get()});
  }
}

void Call::run(std::initializer_list<const void*> data) {
  const dnnl_exec_arg_t* argument = executed_.data();
  for (const void* address : data) {
    // Inputs are not written: oneDNN's C interface has no const here.
    if (address != nullptr) {
      check(dnnl_memory_set_data_handle(argument->memory, const_cast<void*>(address)), "data");
    }
    ++argument;
  }
  if (scratchpad_bytes_ > 0) {
    check(dnnl_memory_set_data_handle(executed_.back().memory, scratch(scratchpad_bytes_)), "scratchpad");
  }
  check(dnnl_primitive_execute(primitive_.get(), stream().get(), static_cast<int>(executed_.size()),
                               executed_.data()),
        "execute");
}

}  // namespace millrace::cpu::onednn

namespace millrace::cpu {

bool has_bf16() {
  constexpr auto kNeeded = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
}

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace millrace::cpu

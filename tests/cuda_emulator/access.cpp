// What each load and store of a kernel is asked first: GCC's kernel address sanitizer and its check of
// alignment call these (cmake/MillraceCudaEmulated.cmake), and nothing else of theirs is linked.
#include <fmt/format.h>

#include "internal.h"

namespace millrace::emulator {
namespace {

template <std::size_t kBytes>
void check_access(const void* data, const char* verb) {
  if (!Arena::may_access(data, kBytes)) [[unlikely]] {
    fault(cudaErrorIllegalAddress, fmt::format("{} {} bytes {}", verb, kBytes, describe_place(data)));
  }
}
void check_access(const void* data, std::size_t bytes, const char* verb) {
  const auto* begin = static_cast<const std::byte*>(data);
  for (std::size_t i = 0; i < bytes; ++i) {
    if (!Arena::may_access(begin + i, 1)) {
      fault(cudaErrorIllegalAddress, fmt::format("{} {} bytes, of which the one at {} lies {}", verb, bytes,
                                                 i, describe_place(begin + i)));
    }
  }
}

/// What the compiler says of a place where an address may be misaligned; only its beginning is read.
struct Mismatch {
  const char* file;
  unsigned line, column;
  const void* type;
  unsigned char log_alignment;
};

}  // namespace
}  // namespace millrace::emulator

using namespace millrace::emulator;

#define MILLRACE_ACCESS(bytes)                                                                \
  void __asan_load##bytes##_noabort(const void* data) { check_access<bytes>(data, "reads"); } \
  void __asan_store##bytes##_noabort(const void* data) { check_access<bytes>(data, "writes"); }

extern "C" {  // NOLINTBEGIN(bugprone-reserved-identifier): the compiler's names
MILLRACE_ACCESS(1)
MILLRACE_ACCESS(2)
MILLRACE_ACCESS(4)
MILLRACE_ACCESS(8)
MILLRACE_ACCESS(16)
void __asan_loadN_noabort(const void* data, std::size_t bytes) { check_access(data, bytes, "reads"); }
void __asan_storeN_noabort(const void* data, std::size_t bytes) { check_access(data, bytes, "writes"); }
void __asan_handle_no_return() {}
void __asan_before_dynamic_init(const char*) {}
void __asan_after_dynamic_init() {}

void __ubsan_handle_type_mismatch_v1_abort(const Mismatch* where, const void* data) {
  fault(cudaErrorMisalignedAddress, fmt::format("{}:{}: uses {}, which is no multiple of {} bytes",
                                                where->file, where->line, data, 1u << where->log_alignment));
}
}  // NOLINTEND(bugprone-reserved-identifier)

// libFuzzer's program for all targets; the environment's MILLRACE_FUZZ names one. scripts/trials/fuzz runs
// it.

#include <cstdio>
#include <cstdlib>

#include "targets.h"

namespace millrace::fuzz {
namespace {

Target chosen() {
  const char* name = std::getenv("MILLRACE_FUZZ");
  for (const Target& target : all_targets()) {
    if (name != nullptr && target.name == name) {
      return target;
    }
  }
  std::fputs("fuzz: MILLRACE_FUZZ names no target\n", stderr);
  std::exit(2);
}

}  // namespace
}  // namespace millrace::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const millrace::fuzz::Target target = millrace::fuzz::chosen();
  outcome_and_sealed(target, std::as_bytes(std::span(data, size)));
  return 0;
}

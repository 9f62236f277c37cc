// Ends a program on a processor that lacks what the program was compiled for, before any other code of ours
// runs and is stopped by SIGILL. So this file is compiled for the oldest x86-64, and calls nothing that other
// files may define as well, as they do inline functions.
#ifdef __x86_64__

#include <cstring>
#include <unistd.h>

namespace {

struct Need {
  const char* name;
  bool is_there;
};

}  // namespace

/// The first of the static initializers. The linker option `-u` brings it into every program.
extern "C" [[gnu::constructor(101)]] void millrace_check_processor() {
  __builtin_cpu_init();
  const Need needs[] = {
#include "base/processor_needs.inc"
      {nullptr, true}};
  constexpr std::size_t kMostText = 2048;
  char all[kMostText] = "", lacking[kMostText] = "";
  for (const Need* need = needs; need->name != nullptr; ++need) {
    std::strcat(std::strcat(all, " "), need->name);
    if (!need->is_there) {
      std::strcat(std::strcat(lacking, " "), need->name);
    }
  }
  if (lacking[0] == '\0') {
    return;
  }
  char text[2 * kMostText + 512] = "millrace: this program was built for processors with";
  std::strcat(std::strcat(text, all), "; this one lacks");
  std::strcat(std::strcat(text, lacking),
              "; build it on this machine, or for others: cmake -DMILLRACE_ARCH=x86-64-v3 (x86-64-v2 for a "
              "processor without avx2)\n");
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, std::strlen(text));
  ::_exit(1);  // as for other errors of the machine
}

#endif
